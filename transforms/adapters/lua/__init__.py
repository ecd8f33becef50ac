"""LuaJIT through lupa, in this process or in one of its own."""
