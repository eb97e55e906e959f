"""What people look at: a report of a run that opens from disk, and a viewer on this machine. Both
read results and slides; nothing is inferred."""
