"""The drill: the operator's own configuration, run against providers that misbehave inside this process.

answers     what a well provider says, and how it is written
provider    the provider: sockets, requests, and the log of what really arrived
faults      what a provider can do instead of answering
scenarios   what a scenario is: a fault, whom it strikes, and what must come of it
catalogue   all of them
stage       whom a scenario strikes, decided attempt by attempt
course      where a model's calls can lead, read from the configuration
timing      how long everything takes, short or as configured
caller      one call to the gateway, and what a careful client makes of the answer
judge       what happened, held against what had to happen
run         a gateway and a provider for each scenario, the verdicts gathered
scorecard   the verdicts, for people and for programs
"""
