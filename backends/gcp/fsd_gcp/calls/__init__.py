"""How anything of Google's is asked: clients, whose credentials, over which connections, and what the answers mean."""
