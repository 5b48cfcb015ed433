"""Release: the model card, the file manifest, and the champion."""
