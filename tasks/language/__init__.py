"""Language modelling: texts in files, tokenizers, windows, bits per byte, recall, and the task that trains on them."""
