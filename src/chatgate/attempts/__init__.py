"""A call on its way to upstreams: one attempt after the other, until one of them answers or nothing is left to try.

`attempt` is one try at one target, `calling` the tries until an answer begins, `stream` the way of a stream to its
caller, over as many targets as it takes, `leaving` what becomes of an answer whose caller left. Which target comes next
is decided in `routing`; what the caller is told in the end, in the pipeline.
"""
