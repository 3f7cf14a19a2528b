"""What can be held by a test about the tree itself: layout, names, banned calls, documentation, weight of imports."""
