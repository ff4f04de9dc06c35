"""A GPU that is not there: whole audits run on it on a CPU, and models of true size as shapes alone.

``device.py`` is the pretended device, ``tensor.py`` what lies on it, ``driver.py`` what autograd needs of a
driver. ``cases.py`` are the walks through the product, one process each; the tests say what is expected of
them. A script of your own: ``python -m tests.pretended_gpu SCRIPT``.

It shows nothing of kernels, speed, workspaces, a GPU's rounding, or bits that hang on the shape of a batch.
"""
