"""A stream that broke off in the middle of an answer: what the caller has got of it, and how another target goes on.

    Transcript       takes note of the events that were passed on, at next to no cost while all goes well
    Resumption       turns the next target's stream into the rest of the first one, or says that it is another answer
    continued_body   the caller's request with the text so far as an assistant's message, for providers that continue it

The rule of a resumption: until the new stream has said everything that the caller was already sent, field by field,
nothing of it is passed on. From there on the caller's text is the new answer's text, exactly. Here is no I/O and no
choice of targets; those who make the attempts use all three.
"""

from chatgate.protocols.resume.continuation import continued_body
from chatgate.protocols.resume.resumption import Resumption
from chatgate.protocols.resume.transcript import Transcript

__all__ = ["Resumption", "Transcript", "continued_body"]
