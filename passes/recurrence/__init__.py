"""Recurrences: RNN, GRU and LSTM nodes, what surrounds them and what they are made of."""
