// What is left of the arithmetic: the kernels that save launches, or that must not use atomics.

KERNEL lerp_into(real* target, const real* value, real weight, index_t count) {
    EACH(i, count);
    target[i] += weight * (value[i] - target[i]);
}

// flag: 0 before; any thread may set it.
KERNEL find_not_finite(const real* a, int* flag, index_t count) {
    EACH(i, count);
    if (!isfinite(a[i])) *flag = 1;
}

// ga[place] = sum of the gy that belong there. places: sorted; order: the gy of each. The first of a run adds it up.
KERNEL add_runs(const real* gy, const long long* order, const long long* places, real* ga, index_t count) {
    EACH(i, count);
    if (i > 0 && places[i - 1] == places[i]) return;
    real sum = 0;
    for (index_t j = i; j < count && places[j] == places[i]; j++) sum += gy[order[j]];
    ga[places[i]] = sum;
}
