"""Sources of CT studies and reports become one manifest with keyed ids; patients are split here too."""
