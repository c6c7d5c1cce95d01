"""Every operation, every constraint and every error that the newest SDK's model of Data Streams has."""

import pytest

import model


@pytest.fixture(scope="session")
def wire(server):
    return model.Wire(server)


BREAKS = [one for operation in model.SUPPORTED for one in model.breaks(operation)]


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.id)
def test_a_broken_constraint_is_told_as_aws_tells_it(wire, broken):
    name, text = wire.error(broken.operation, broken.request)
    assert name == "ValidationException", text
    assert model.same(text, broken.text), f"\n  got:  {text[:600]}\n  want: {broken.text[:600]}"
