"""Users: profile, visit, history, and the user API's answers about them."""
