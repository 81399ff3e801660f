"""Hostile tables, pictures, folders and arrays do no harm: each is refused in one line, or read."""

import pytest

from hostile.data_cases import all_cases
from hostile.harness import assert_harmless, attack, share

pytestmark = [pytest.mark.any_backend, pytest.mark.hostile]


def test_hostile_data(request):
    cases = all_cases()
    assert sum(map(len, cases.values())) >= 500
    outcomes = []
    for reader, of_reader in cases.items():
        outcomes += attack(reader, share(of_reader, request.config, one_in=12), seconds=120)
    print(assert_harmless(outcomes))
