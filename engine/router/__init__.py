"""An HTTP router in front of OpenAI-compatible servers, with the policies of `workbench/router.py`.

Needs no torch and no tokenizer: it reads of a request what routing needs and passes on the rest.
"""
