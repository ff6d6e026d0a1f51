"""What an option needs is there, or is named."""

import pytest

from mapl_ray.errors import UserError
from mapl_ray.versions import require


def test_what_is_missing_is_named_with_the_cure() -> None:
    require("a.b=c", ["pytest"], "set it to null")
    with pytest.raises(UserError) as caught:
        require("a.b=c", ["no_such_one", "pytest", "no_such_other"], "set it to null")
    assert str(caught.value) == (
        "a.b=c: not installed here: no_such_one, no_such_other. Run `pip install no_such_one no_such_other`, on every "
        "node, or set it to null."
    )
