"""From a corpus to the queue: the readers, the chunks, and the commands that submit."""
