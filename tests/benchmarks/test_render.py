"""benchmarks/render.py on a small generated checkout."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import render
from homoreg.comparison import Comparison, Contender
from homoreg.evaluation import Evaluation, evaluate
from homoreg.plotting import box_plot
from homoreg.synthesis.dataset import SkyDataSet
from tests.scenes import write_set

PAGE = "before\n{}\n{}\nafter\n".format(*render.markers("results"))
PLACE = "".join(
    "{}\n{}\n".format(*render.markers(about))
    for about in ("published", "efforts", "trust", "end_to_end", "samples", "references", "colours")
)
WEIGHTS = {"m120": b"one", "m70": b"two"}


def contender(name: str, samples: int, starter: str = "") -> Contender:
    digest = hashlib.sha256(WEIGHTS[name]).hexdigest()
    facts = {"samples": str(samples), "minutes": "72.5", "hardware": "two cores", "starter": starter}
    return Contender(name, digest, name, facts)


def named(found: Evaluation, who: Contender) -> Evaluation:
    return Evaluation(**{**vars(found), "method": who.name, "weights": who.weights[:12]})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two embedded models, two methods without weights, two sets; pages not yet rendered."""
    table = Comparison(tmp_path / "benchmarks" / "results")
    for name, count in (("park", 3), ("city", 2)):
        pairs = SkyDataSet(write_set(tmp_path / "sets" / name, count))
        found = evaluate("nothing", pairs)
        for who in (Contender("nothing"), contender("m120", 1000), contender("m70", 600, "m120")):
            table.put(who, named(found, who), pairs.digest()[:12])
    table.write()
    for name, data in WEIGHTS.items():
        folder = tmp_path / ("src/homoreg/weights" if name == "m120" else "weights") / name
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(data)
        (folder / "README.md").write_text(PAGE)
    draw(tmp_path)
    write_more(tmp_path)
    (tmp_path / "README.md").write_text(PAGE)
    (tmp_path / "docs" / "evaluation.md").write_text(PAGE + PLACE)
    assert run(tmp_path) == 0
    return tmp_path


def write_more(root: Path) -> None:
    """The tables of efforts, trust and whole pictures, all about m120."""
    digest = hashlib.sha256(WEIGHTS["m120"]).hexdigest()[:12]
    texts = {
        "efforts": "effort,set,n,mean,median,q75,max,under_1,under_3,ms\n"
        "fast,park,3,2.5,2.25,3,9.75,0,0.5,100\nfast,city,2,1,1,1,1,1,1,110\n"
        "auto,park,3,1.5,1.25,2,8.75,0.5,0.75,400\nauto,city,2,1,1,1,1,1,1,420\n",
        "trust": "set,n,right,confidence,auroc,ece,ece_by_chance,aurc,far_at_80,coverage,"
        "accepted,accepted_far,refused\n"
        "park,3,0.5,0.625,0.9375,0.0625,0.03125,0.1,0.25,0.875,0.75,nan,1\n",
        "end_to_end": "set,case,error_128,error_ir_px,confidence,reliable,seconds\n"
        "roofs,a,1.5,3,0.9,True,0.4\nroofs,b,12.5,25,0.75,True,0.4\nroofs,c,2.5,5,0.25,False,1.4\n"
        "samples,ice,0.5,2.5,0.9,True,0.4\n",
        "references": "set,from,n,reliable,information,gradients,both\n"
        "park,0,2,2,1,2,1\npark,3,0,0,0,0,0\npark,10,1,0,0,1,0\ncity,0,2,2,2,2,2\n",
        "colours": "colours,compressed,set,n,mean,median,q75,max,under_1,under_3\n"
        "grey,0,park,3,2.5,2.25,3,9.75,0,0.5\ngrey,1,park,3,3.5,3.25,4,9.75,0,0.25\n"
        "grey,0,city,2,1,1,1,1,1,1\ngrey,1,city,2,2,2,2,2,0,1\n",
    }
    for name, text in texts.items():
        head, *lines = text.splitlines()
        about = [f"model,weights,{head}", *(f"m120,{digest},{line}" for line in lines)]
        (root / "benchmarks" / "results" / f"{name}.csv").write_text("\n".join(about) + "\n")
    (root / "benchmarks" / "results" / "samples.csv").write_text(
        "commit,weights,samples,set,n,median,mean,under_3\n"
        f"abc,0123,500,park,3,2,4,0.5\ndef,{digest},1000,park,3,1,2,0.75\n,,10000,park,3,0.1,0.2,\n"
    )


def draw(root: Path) -> None:
    errors = (root / "benchmarks" / "results" / "comparison_errors.csv").read_bytes()
    (root / "docs" / "images").mkdir(parents=True, exist_ok=True)
    source = hashlib.sha256(errors).hexdigest()
    box_plot(
        {"park": {"nothing": [1.0]}}, root / "docs/images/comparison.png", methods=["nothing"], source=source
    )


def run(root: Path, *arguments: str) -> int:
    return render.main(arguments, root=root)


def table_in(path: Path, about: str = "results") -> list[list[str]]:
    begin, end = render.markers(about)
    lines = path.read_text().partition(begin)[2].partition(end)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def rows_of(root: Path) -> Sequence[render.Row]:
    return render.read(root / "benchmarks" / "results" / "comparison.csv")


def test_the_readme_holds_a_line_for_each_method(root: Path) -> None:
    text = (root / "README.md").read_text()
    header, _, *lines = table_in(root / "README.md")
    assert header == ["method", "training samples", "city (2)", "park (3)"]
    assert [line[:2] for line in lines] == [["nothing", "–"], ["m70 †", "600, after m120"], ["m120", "1,000"]]
    row = rows_of(root)[0]
    assert lines[0][2] == (
        f"{float(row['mean']):.2f} / {float(row['median']):.2f} / 100 % / {float(row['max']):.1f}"
        if float(row["max"]) < 3
        else f"{float(row['mean']):.2f} / {float(row['median']):.2f} / "
        f"{100 * float(row['under_3']):.0f} % / {float(row['max']):.1f}"
    )
    assert "† trained on fewer samples than m120 (1,000)." in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")


def test_the_documentation_holds_every_column_and_the_budgets(root: Path) -> None:
    lines = table_in(root / "docs" / "evaluation.md")
    assert lines[0][:3] == ["set (pairs)", "method", "mean"]
    assert lines[0][-2:] == ["doubted", "ms"]
    assert [line[0] for line in lines[2:8]] == ["city (2)", "", "", "park (3)", "", ""]
    assert all(len(line) == len(lines[0]) for line in lines[:8])
    digest = hashlib.sha256(WEIGHTS["m70"]).hexdigest()[:12]
    assert lines[-2:] == [
        ["m70", "two cores", "m120", f"`{digest}`", "600", "60 %", "72"],
        ["m120", "two cores", "–", lines[-1][3], "1,000", "100 %", "72"],
    ]


def test_ours_stand_beside_what_others_published(root: Path) -> None:
    rows = [dict(row) for row in rows_of(root)]
    for row in rows:
        row["set"] = {"city": "uav_thermal"}.get(row["set"], row["set"])
    table = render.published(rows).splitlines()
    header, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
    assert header[1:4] == [one for one in header if one.startswith("published: ")]
    assert header[4:] == ["measured here: uav_thermal", "measured here: aerial_nir"]
    by_name = {line[0]: line[1:] for line in lines}
    own = next(row for row in rows if row["method"] == "m120" and row["set"] == "uav_thermal")
    assert by_name["M120"] == [
        "145.8, –", "–", "–", f"{float(own['mean']):.2f}, {float(own['median']):.2f}", "–",
    ]  # fmt: skip
    assert by_name["VisIRNet"] == ["–", "3.83, 3.46", "24.76, 24.88", "–", "–"]
    assert table_in(root / "docs" / "evaluation.md", "published")[2][0] == lines[0][0]


def test_a_card_is_about_its_model(root: Path) -> None:
    for folder, name in (("src/homoreg/weights/m120", "m120"), ("weights/m70", "m70 †")):
        methods = [line[1] for line in table_in(root / folder / "README.md")[2:]]
        assert methods == ["nothing", name.removesuffix(" †")] * 2


def test_a_check_writes_nothing_and_finds_a_page_that_was_edited(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(root, "--check") == 0
    page = root / "README.md"
    page.write_text(page.read_text().replace("nothing", "something"))
    edited = page.read_text()
    capsys.readouterr()
    assert run(root, "--check") == 1
    assert capsys.readouterr().out == "out of date: README.md\n"
    assert page.read_text() == edited
    assert run(root) == 0
    assert run(root, "--check") == 0


def problem(root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert run(root, "--check") == 1
    return capsys.readouterr().out


@pytest.mark.parametrize("folder", ["src/homoreg/weights/m120", "weights/m70"])
def test_other_weights_than_those_measured(
    root: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / folder / "model.safetensors").write_bytes(b"retrained")
    assert "was not measured on city, park\n" in problem(root, capsys)


def test_a_model_that_was_not_measured(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "weights" / "dhn").mkdir()
    (root / "weights" / "dhn" / "model.safetensors").write_bytes(b"new")
    (root / "weights" / "dhn" / "README.md").write_text(PAGE)
    assert "dhn (" in problem(root, capsys)


def test_a_figure_that_was_edited(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = root / "benchmarks" / "results" / "comparison.csv"
    mean = rows_of(root)[0]["mean"]
    path.write_text(path.read_text().replace(mean, "0.5", 1))
    assert "nothing on city: the errors of the pairs are not those of the row" in problem(root, capsys)


def test_an_error_that_was_edited(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = root / "benchmarks" / "results" / "comparison_errors.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], lines[-1].rpartition(",")[0] + ",77.00"]) + "\n")
    assert "m120 on park: the errors of the pairs" in problem(root, capsys)
    path.write_text("\n".join(lines[:-1]) + "\n")
    assert "m120 on park: the errors of the pairs" in problem(root, capsys)
    path.write_text("\n".join([*lines, "surf,park,00,1.00"]) + "\n")
    assert "surf on park: errors without a row" in problem(root, capsys)


def test_a_picture_of_other_errors(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = root / "docs" / "images" / "comparison.png"
    picture.write_bytes(b"\x89PNG of something else")
    assert "comparison.png does not show these errors" in problem(root, capsys)
    draw(root)
    assert run(root, "--check") == 0


def test_a_page_that_lost_its_markers(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "README.md").write_text("no results here")
    assert "README.md has no place for results" in problem(root, capsys)
    (root / "README.md").write_text(PAGE)
    (root / "docs" / "evaluation.md").write_text(PAGE)
    assert "docs/evaluation.md has no place for published" in problem(root, capsys)


def test_efforts_trust_and_whole_pictures(root: Path) -> None:
    page = (root / "docs" / "evaluation.md").read_text()
    assert "| fast | 2.50 / 2.25 / 50 % / 9.8 | 1.00 / 1.00 / 100 % / 1.0 | 105 |" in page
    assert "| auto | 1.50 / 1.25 / 75 % / 8.8 | 1.00 / 1.00 / 100 % / 1.0 | 410 |" in page
    line = "| park (3) | 50.0 % | 62.5 % | 0.938 | 0.062 | 0.031 | 25.0 % | 87.5 % | 75.0 % | – | 100.0 % |"
    assert line in page
    assert "| roofs (3) | 2.50 | 66.7 % | 2 | 1 | 14.00 |" in page
    assert "| ice (1) | 0.50 | 100.0 % | 1 | 0 | 2.50 |" in page


def test_how_well_references_fit(root: Path) -> None:
    _, _, *lines = table_in(root / "docs" / "evaluation.md", "references")
    assert lines == [
        ["park", "0–3 px", "2", "2", "1", "2", "1"],
        ["", "10 px and more", "1", "0", "0", "1", "0"],
        ["city", "0–3 px", "2", "2", "2", "2", "2"],
    ]


def test_errors_against_samples(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (root / "docs" / "evaluation.md").read_text()
    assert "| 500 | 2.00 / 4.00 |\n| 1,000 | 1.00 / 2.00 |\n| *10,000, foretold* | 0.10 / 0.20 |" in page
    path = root / "benchmarks" / "results" / "samples.csv"
    path.write_text(path.read_text().replace("def,", "def,0"))
    assert "samples.csv is not about the present weights" in problem(root, capsys)


def test_what_colours_cost(root: Path) -> None:
    header, _, *lines = table_in(root / "docs" / "evaluation.md", "colours")
    assert header == ["shown as", "park (3)", "city (2)"]
    assert lines == [
        ["grey", "2.25 / 2.50 / 50.0 %", "1.00 / 1.00 / 100.0 %"],
        ["grey, compressed", "3.25 / 3.50 / 25.0 %", "2.00 / 2.00 / 100.0 %"],
    ]


@pytest.mark.parametrize("name", ["efforts", "trust", "end_to_end", "references", "colours"])
def test_a_table_of_other_weights(root: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path = root / "benchmarks" / "results" / f"{name}.csv"
    path.write_text(path.read_text().replace("m120,", "m120,0"))
    assert f"{name}.csv is not about the present weights" in problem(root, capsys)
