"""Register one bundled pair: the README's lines, as a script.

    python examples/quickstart.py

Run it from the root of the repository.
"""

from homoreg import Registrar

registrar = Registrar.from_pretrained("m120")
result = registrar("examples/samples/sea_ice/thermal_16bit.png", "examples/samples/sea_ice/rgb.jpg")
print(result.homography, result.expected_error, result.confidence)
result.save("out/quickstart")
