/* How hard to search. Included by search.inc.h. */

typedef struct {
    /* candidates of a sub-block */
    int n_reach;      /* grid points per variant, for 16 codes */
    float reach_from; /* where the largest |x| may land: times the end of the book nearer to zero ... */
    float reach_to;   /* ... times the farther end */
    int n_refine;     /* least-squares steps from the candidates kept */
    int n_keep;       /* candidates kept per variant */
    /* the shortlist of values of d, by the candidates' parabolas */
    int n_d;            /* values between d_from and d_to */
    float d_from, d_to; /* times (the largest of the sub-blocks' smallest good scales / the largest scale code) */
    int n_d_fine;       /* values around each of the best of these */
    int n_divisor;      /* values that make that scale a whole multiple */
    /* with codes assigned again */
    int n_exact;     /* values of d from the shortlist */
    int n_polish;    /* least-squares steps of d, or of a block's scale */
    int n_try;       /* variants per sub-block, most promising first */
    int n_neighbour; /* scale codes on each side of the best */
} search_plan;

/* clang-format off */

/* The K types: one d for sixteen sub-blocks of 16. The KS types: one d for the sub-blocks of 32 of a whole row. */
static const search_plan superblock_plans[] = {
    /*                     reach  from  to   refine keep  d  from  to   fine divisor  exact polish try neighbour */
    [IQ_EFFORT_FAST]   = {     8, 0.8f, 1.3f,     0,   2,  8, 0.6f, 2.0f,   4,      1,     1,     1,  1,        0},
    [IQ_EFFORT_NORMAL] = {    16, 0.7f, 2.0f,     1,   4, 24, 0.5f, 2.2f,   8,      2,     2,     2,  2,        1},
    [IQ_EFFORT_BEST]   = {    40, 0.6f, 2.5f,     2,   8, 48, 0.5f, 2.2f,  24,      8,     6,     4,  4,        2},
};
static const search_plan row_plans[] = {
    [IQ_EFFORT_FAST]   = {     8, 0.8f, 1.3f,     1,   1, 12, 0.6f, 2.0f,   4,      1,     1,     1,  1,        1},
    [IQ_EFFORT_NORMAL] = {    16, 0.7f, 2.0f,     1,   4, 24, 0.5f, 2.2f,   8,      2,     2,     2,  2,        1},
    [IQ_EFFORT_BEST]   = {    40, 0.6f, 2.5f,     2,   8, 48, 0.5f, 2.2f,  24,      8,     6,     4,  4,        2},
};

/* Blocks of 32 with a scale of their own. */
static const search_plan block_plans[] = {
    [IQ_EFFORT_FAST]   = {.n_reach = 10, .reach_from = 0.80f, .reach_to = 1.2f, .n_keep = 4, .n_polish = 1},
    [IQ_EFFORT_NORMAL] = {.n_reach = 32, .reach_from = 0.72f, .reach_to = 1.3f, .n_keep = 8, .n_polish = 2,
                          .n_refine = 1},
    [IQ_EFFORT_BEST]   = {.n_reach = 48, .reach_from = 0.60f, .reach_to = 1.5f, .n_keep = 8, .n_polish = 4,
                          .n_refine = 2},
};
/* clang-format on */

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
