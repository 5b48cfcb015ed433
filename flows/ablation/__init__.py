"""An ablation: arms x seeds on the same data, equal steps, one table with intervals: `python -m flows.ablation`."""
