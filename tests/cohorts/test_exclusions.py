"""The account of who is in a cohort, and who is not."""

import logging

import pytest

from autospec.cohorts.exclusions import Account
from autospec.errors import AutoSpecError


def test_an_error_tells_the_account_even_where_only_warnings_are_heard(caplog):
    account, logger = Account(["10 subjects"]), logging.getLogger("autospec.test_account")
    account.drop("sub-a", "has no aseg.stats")
    with (
        caplog.at_level(logging.WARNING, logger.name),
        pytest.raises(AutoSpecError, match="too few"),
        account.told_on_error(logger),
    ):
        raise AutoSpecError("too few")
    assert caplog.messages == ["10 subjects", "left out: sub-a: has no aseg.stats"]
