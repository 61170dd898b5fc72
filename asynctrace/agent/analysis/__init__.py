"""What a trace says about why it took so long. Standard library only; plain data in, plain data out.

waits       the parts of a span that were waiting, from the figures it carries
lanes       which process did what: the rows of the flame graph
critical    the chain of work that decided when the trace ended, and where its time went
findings    what is worth a look: N+1 queries, starved pools, orphans, late work, errors
"""
