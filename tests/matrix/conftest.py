import pytest

# The module has the assertions of all tests of this folder.
pytest.register_assert_rewrite("tests.matrix.endings")
