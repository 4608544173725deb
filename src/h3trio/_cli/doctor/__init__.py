"""The command `doctor`: an event stream looked at from outside."""
