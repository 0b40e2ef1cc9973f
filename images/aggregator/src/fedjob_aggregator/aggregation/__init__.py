"""How updates become the next model: exact integer sums, and the NumPy reference that defines them.

`reference` says what is correct, `fixed_point` which updates are accepted, `accumulator` holds the sums of a round, and
`backends` chooses between the two implementations of its inner loops: NumPy at once, `kernels` (Numba) once compiled.
All give the same bits.
"""
