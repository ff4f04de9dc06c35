"""Concepts and prompts that a policy can name: the sets of the papers and of the micro world, templates,
prompt files."""
