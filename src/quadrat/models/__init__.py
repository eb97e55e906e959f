"""Networks and packages, how one predicts a core, and the protocol that a task fulfils.

Nothing here knows a certain task."""
