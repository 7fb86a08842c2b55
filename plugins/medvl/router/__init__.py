"""Which task a question asks for: rules on the form of the answer, a GLiClass classifier, or neither (`general`)."""
