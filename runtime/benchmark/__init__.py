"""How fast a model runs, and how near the roof of this machine's memory.

- `timing`: trials of prefill and decode, and the share of the roof that they reached;
- `report`: what they found, as a table and a picture;
- `synthetic`: models of random weights, for measuring without a file at hand.
"""
