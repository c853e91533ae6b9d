"""Who are you: users, the tokens that name them, and the origins they may come from. Not what they may do (`pipeline/authorization`)."""
