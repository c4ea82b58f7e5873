"""Every error says what happened, whose fault it is, and whether another try makes sense."""

from __future__ import annotations

import pytest

from chatgate.vocabulary.errors import (
    CallerError,
    GateError,
    InternalError,
    Kind,
    Overloaded,
    Parameter,
    Phrase,
    Remedy,
    UpstreamError,
)


@pytest.mark.parametrize(
    ("error", "kind", "reason", "remedy"),
    [
        (CallerError(Kind.INVALID_KEY, "unknown_key"), Kind.INVALID_KEY, "unknown_key", Remedy.PASS_ON),
        (UpstreamError("upstream_cut"), Kind.UPSTREAM_ERROR, "upstream_cut", Remedy.RETRY),
        (
            UpstreamError("upstream_silent", kind=Kind.UPSTREAM_TIMEOUT),
            Kind.UPSTREAM_TIMEOUT,
            "upstream_silent",
            Remedy.RETRY,
        ),
        (Overloaded(), Kind.OVERLOADED, "overloaded", Remedy.PASS_ON),
        (Overloaded("draining"), Kind.OVERLOADED, "draining", Remedy.PASS_ON),
        (InternalError(), Kind.INTERNAL_ERROR, "internal_error", Remedy.PASS_ON),
    ],
)
def test_errors_know_their_situation(error: GateError, kind: Kind, reason: str, remedy: Remedy) -> None:
    """The kind, the reason and what may be tried next."""
    assert (error.kind, error.reason, error.remedy, str(error)) == (kind, reason, remedy, reason)
    assert error.phrase == Phrase(reason, {})


def test_parameters_become_the_phrase() -> None:
    """What fills the placeholders is kept as it is, other phrases included."""
    parameters: dict[str, Parameter] = {"field": "model", "expected": Phrase("type_string")}
    error = CallerError(Kind.INVALID_VALUE, "wrong_type", param="model", parameters=parameters)
    assert error.phrase == Phrase("wrong_type", parameters)
    assert error.param == "model"


def test_stable_codes_are_distinct_and_speakable() -> None:
    """Programs rely on them: lower-case words, no two alike."""
    codes = [kind.value for kind in Kind]
    assert len(codes) == len(set(codes))
    assert all(code.replace("_", "").isalpha() and code.islower() for code in codes)


def test_parameters_of_one_error_are_not_anothers() -> None:
    """The shared default cannot be written to."""
    with pytest.raises(TypeError):
        InternalError().parameters["x"] = 1  # type: ignore[index]  # the point of the test
