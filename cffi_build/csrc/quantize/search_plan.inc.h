/* How hard to search. Included by search.inc.h. */

typedef struct {
    int n_reach;                /* grid points per variant */
    float reach_from, reach_to; /* where the largest |x| may land: times the nearer, the farther end of the book */
    int n_refine;               /* least-squares steps from the best grid point of each variant */
    int n_keep;                 /* candidates kept per variant */
    int n_d;                    /* values of d tried with the candidates' parabolas */
    int n_d_fine, n_divisor;
    float d_from, d_to;         /* relative to: largest scale / largest scale code */
    int n_exact;                /* of these, searched with the codes assigned again */
    int n_polish;               /* least-squares steps of d after that */
    int n_try;                  /* variants assigned again, most promising first */
    int n_neighbour;            /* scale codes tried on each side */
} search_plan;

/* The K types: one d for sixteen sub-blocks of 16. */
static const search_plan superblock_plans[] = {
    [IQ_EFFORT_FAST] = {.n_reach = 8, .reach_from = 0.8f, .reach_to = 1.3f, .n_keep = 2, .n_d = 12, .n_d_fine = 4,
                        .n_divisor = 1, .d_from = 0.6f, .d_to = 2.0f, .n_exact = 1, .n_polish = 1, .n_try = 1},
    [IQ_EFFORT_NORMAL] = {.n_reach = 16, .reach_from = 0.7f, .reach_to = 2.0f, .n_refine = 1, .n_keep = 4, .n_d = 24,
                          .n_d_fine = 8, .n_divisor = 2, .d_from = 0.5f, .d_to = 2.2f, .n_exact = 2, .n_polish = 2,
                          .n_try = 2, .n_neighbour = 1},
    [IQ_EFFORT_BEST] = {.n_reach = 40, .reach_from = 0.6f, .reach_to = 2.5f, .n_refine = 2, .n_keep = 8, .n_d = 48,
                        .n_d_fine = 24, .n_divisor = 8, .d_from = 0.5f, .d_to = 2.2f, .n_exact = 6, .n_polish = 4,
                        .n_try = 4, .n_neighbour = 2},
};

/* The KS types: one d for the sub-blocks of 32 of a whole row. */
static const search_plan row_plans[] = {
    [IQ_EFFORT_FAST] = {.n_reach = 10, .reach_from = 0.8f, .reach_to = 1.3f, .n_refine = 1, .n_keep = 2, .n_d = 12,
                        .n_d_fine = 4, .n_divisor = 1, .d_from = 0.6f, .d_to = 2.0f, .n_exact = 1, .n_polish = 1,
                        .n_try = 1, .n_neighbour = 1},
    [IQ_EFFORT_NORMAL] = {.n_reach = 16, .reach_from = 0.7f, .reach_to = 2.0f, .n_refine = 1, .n_keep = 4, .n_d = 24,
                          .n_d_fine = 8, .n_divisor = 2, .d_from = 0.5f, .d_to = 2.2f, .n_exact = 2, .n_polish = 2,
                          .n_try = 2, .n_neighbour = 1},
    [IQ_EFFORT_BEST] = {.n_reach = 40, .reach_from = 0.6f, .reach_to = 2.5f, .n_refine = 2, .n_keep = 8, .n_d = 48,
                        .n_d_fine = 24, .n_divisor = 8, .d_from = 0.5f, .d_to = 2.2f, .n_exact = 6, .n_polish = 4,
                        .n_try = 4, .n_neighbour = 2},
};

/* Blocks of 32 with a scale of their own. */
static const search_plan block_plans[] = {
    [IQ_EFFORT_FAST] = {.n_reach = 10, .reach_from = 0.8f, .reach_to = 1.2f, .n_keep = 4, .n_polish = 1},
    [IQ_EFFORT_NORMAL] = {.n_reach = 16, .reach_from = 0.72f, .reach_to = 1.3f, .n_refine = 1, .n_keep = 6, .n_polish = 2},
    [IQ_EFFORT_BEST] = {.n_reach = 48, .reach_from = 0.6f, .reach_to = 1.5f, .n_refine = 2, .n_keep = 8, .n_polish = 4},
};

/* The finer a codebook, the narrower the valleys of the error in the scale. */
static float fineness(const iq_book *book) {
    const int n = book->n_code;
    return n <= 4 ? 0.625f : n <= 8 ? 0.75f : n <= 16 ? 1.0f : n <= 32 ? 1.5f : n <= 64 ? 2.0f : 3.0f;
}

static search_plan shared_plan(const iq_scale_group *g) {
    search_plan plan = g->sub < IQ_SUB_MOST ? superblock_plans[g->effort] : row_plans[g->effort];
    const float fine = fineness(g->book);
    plan.n_reach = (int)((float)plan.n_reach * fine);
    if (fine > 1.0f) plan.reach_to = 1.0f + (plan.reach_to - 1.0f) / (fine * fine); /* clipping hardly pays */
    return plan;
}

/* Where nothing but the scale is free, clipping the largest weights pays less the finer the codes are. */
static search_plan block_plan(const iq_scale_group *g) {
    const float fine = fineness(g->book);
    search_plan plan = block_plans[g->effort];
    plan.n_reach = (int)((float)plan.n_reach * fine);
    plan.reach_from = 1.0f - (1.0f - plan.reach_from) / fine;
    plan.reach_to = 1.0f + (plan.reach_to - 1.0f) / fine;
    return plan;
}
