"""The embedded world: a shop's support desk in which good and bad are known word by word. A client of the library.

``language`` holds the words and the sentences, ``world`` writes prompts and responses, ``judge`` finds the defects,
``editor`` mends those that it notices, ``tokenizer`` turns the world's words into ids.
"""
