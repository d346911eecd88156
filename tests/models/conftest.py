from __future__ import annotations

import pytest

# Its name is not that of a test module, so pytest would leave its bare asserts without explanation.
pytest.register_assert_rewrite("tests.models.contract")
