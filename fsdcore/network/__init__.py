"""Networks: layers, activations, files of them, and what a run of one must give."""
