from minicnn.backend.reference import *
