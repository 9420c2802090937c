#include "quantize/feedback_rows.h"

#include <math.h>

#include "quantize/gather.h"

#define D_TRIALS 4

struct feedback_memory {
    iq_book book;
    iq_feedback_panel panel;
    iq_feedback_codes best, trial;
    uint8_t order[IQ_SUPERBLOCK];
    float unit[IQ_LANES];
    float row_d[IQ_LANES]; /* the KS types' d, in the lane's unit */
    float *row;            /* (n_cols) */
    float (*weight)[IQ_LANES], (*error)[IQ_LANES]; /* (n_cols, lanes), in the lane's unit */
    void *search;                                  /* scratch of iq_scaled_solve_d */
};

/* What add_errors and plain_d read. */
#define READ_ONLY(matrix) ((const float(*)[IQ_LANES])(matrix))

/* The codes of IQ4_KSS depend on each other in fours (parity_rows in sub_block.inc.h): these must be neighbours. */
void iq_feedback_make_order(const iq_book *book, uint8_t order[IQ_SUPERBLOCK]) {
    for (int i = 0; i < IQ_SUPERBLOCK; i++) {
        const int sub_block = i / 32, k = i % 32 / 4, member = i % 4;
        const int parity = 32 * sub_block + 2 * k + member % 2 + 16 * (member / 2);
        order[i] = (uint8_t)(book->kind == IQ_BOOK_PARITY ? parity : i);
    }
}

static size_t rounded_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

size_t iq_feedback_layout(const iq_feedback_job *job, void *memory) {
    const size_t head = rounded_up(sizeof(feedback_memory)), matrix = job->n_cols * IQ_LANES * sizeof(float);
    const size_t row = rounded_up(job->n_cols * sizeof(float));
    if (memory) {
        feedback_memory *m = memory;
        uint8_t *bytes = memory;
        m->weight = (float(*)[IQ_LANES])(void *)(bytes + head);
        m->error = (float(*)[IQ_LANES])(void *)(bytes + head + matrix);
        m->row = (float *)(void *)(bytes + head + 2 * matrix);
        m->search = bytes + head + 2 * matrix + row;
        job->format->make_book(&m->book);
        iq_feedback_make_order(&m->book, m->order);
        m->panel.book = &m->book;
        m->panel.rule = job->format->rule;
        m->panel.effort = job->effort;
        m->panel.sub = job->format->sub;
        m->panel.stride = job->n_cols;
    }
    return head + 2 * matrix + row + iq_scaled_scratch_bytes(job->format, job->n_cols);
}

/* ---- rows to lanes; lanes beyond the last row repeat it ---- */

static size_t column_at(const feedback_memory *m, size_t place) {
    return place - place % IQ_SUPERBLOCK + m->order[place % IQ_SUPERBLOCK];
}

static uint8_t *row_of_lane(const iq_feedback_job *job, const iq_feedback_rows_at_once *set, size_t lane) {
    return set->rows + iq_min_size(lane, set->n - 1) * job->row_bytes;
}

static void load_weights(const iq_feedback_job *job, const iq_feedback_rows_at_once *set) {
    feedback_memory *m = job->memory;
    for (size_t lane = 0; lane < IQ_LANES; lane++) {
        const float *row = set->weights + iq_min_size(lane, set->n - 1) * job->n_cols;
        m->unit[lane] = iq_unit_of(row, job->n_cols);
        for (size_t c = 0; c < job->n_cols; c++) m->weight[c][lane] = row[column_at(m, c)] / m->unit[lane];
    }
}

/* The errors of the codes that the rows hold. */
static iq_status load_errors(const iq_feedback_job *job, const iq_feedback_rows_at_once *set, iq_error *error) {
    feedback_memory *m = job->memory;
    for (size_t lane = 0; lane < IQ_LANES; lane++) {
        const uint8_t *row = row_of_lane(job, set, lane);
        const iq_status status = iq_dequantize_rows(job->id, row, 1, job->n_cols, m->row, error);
        if (status != IQ_OK) return status;
        for (size_t c = 0; c < job->n_cols; c++) {
            m->error[c][lane] = m->weight[c][lane] - m->row[column_at(m, c)] / m->unit[lane];
        }
    }
    return IQ_OK;
}

/* ---- d ---- */

/* What the encoder without feedback takes as d of n columns of one lane, in the lane's unit. */
static float plain_d(const iq_feedback_job *job, const float (*x)[IQ_LANES], const float *curvature, size_t n,
                     size_t lane) {
    feedback_memory *m = job->memory;
    const iq_encode_job encode = {IQ_EFFORT_FAST, job->search, m->search};
    for (size_t c = 0; c < n; c++) m->row[c] = x[c][lane] * m->unit[lane];
    return iq_scaled_solve_d(job->format, &encode, m->row, curvature, n) / m->unit[lane];
}

static float d_of_row(const iq_scaled_format *format, const uint8_t *row) {
    float d;
    if (!format->rule.d_is_f32) return iq_f16_to_f32(iq_load_u16(row));
    memcpy(&d, row, sizeof d);
    return d;
}

static void find_row_d(const iq_feedback_job *job, const iq_feedback_rows_at_once *set) {
    feedback_memory *m = job->memory;
    for (size_t lane = 0; lane < IQ_LANES; lane++) {
        m->row_d[lane] = job->again
                             ? d_of_row(job->format, row_of_lane(job, set, lane)) / m->unit[lane]
                             : plain_d(job, READ_ONLY(m->weight), job->curvature, job->n_cols, lane);
    }
}

/* d times `share` as the file can store it, in the lane's unit. */
static float stored_d(float d, float share, float unit) {
    const float real = d * share * unit;
    return iq_f16_to_f32(iq_f32_to_f16(real > 65504.0f ? 65504.0f : real < -65504.0f ? -65504.0f : real)) / unit;
}

/* ---- a superblock ---- */

static void keep_better(const iq_feedback_codes *trial, iq_feedback_codes *best) {
    for (size_t lane = 0; lane < IQ_LANES; lane++) {
        if (!(trial->loss[lane] < best->loss[lane])) continue;
        best->loss[lane] = trial->loss[lane];
        best->d[lane] = trial->d[lane];
        for (size_t c = 0; c < IQ_SUPERBLOCK; c++) {
            best->error[c][lane] = trial->error[c][lane];
            best->code[c][lane] = trial->code[c][lane];
        }
        for (size_t sb = 0; sb < IQ_LANES; sb++) {
            best->k[sb][lane] = trial->k[sb][lane];
            best->shift[sb][lane] = trial->shift[sb][lane];
        }
    }
}

static void encode_under_trial_d(const iq_feedback_job *job) {
    feedback_memory *m = job->memory;
    job->search->feedback->encode(&m->panel, &m->trial);
    keep_better(&m->trial, &m->best);
}

/* The K types: tries what suits the targets without feedback, and less and more of it. */
static void search_superblock_d(const iq_feedback_job *job, size_t at) {
    static const float share[D_TRIALS] = {1.0f, 0.94f, 1.06f, 0.88f};
    static const int n_trial[] = {[IQ_EFFORT_FAST] = 1, [IQ_EFFORT_NORMAL] = 2, [IQ_EFFORT_BEST] = D_TRIALS};
    feedback_memory *m = job->memory;
    float plain[IQ_LANES];
    for (size_t lane = 0; lane < IQ_LANES; lane++) {
        plain[lane] = plain_d(job, READ_ONLY(m->panel.target), job->curvature + at, IQ_SUPERBLOCK, lane);
    }
    for (int i = 0; i < n_trial[job->effort]; i++) {
        for (size_t lane = 0; lane < IQ_LANES; lane++) {
            m->trial.d[lane] = stored_d(plain[lane], share[i], m->unit[lane]);
        }
        encode_under_trial_d(job);
    }
}

/* The targets as the errors of the columns outside the superblock make them. */
static void load_panel(const iq_feedback_job *job, size_t at) {
    feedback_memory *m = job->memory;
    const float *feedback = job->feedback + at;
    const size_t n_cols = job->n_cols, after = at + IQ_SUPERBLOCK;
    const iq_feedback *lanes = job->search->feedback;
    m->panel.feedback = feedback + at * n_cols;
    m->panel.curvature = job->curvature + at;
    memcpy(m->panel.weight, m->weight + at, sizeof m->panel.weight);
    memcpy(m->panel.target, m->weight + at, sizeof m->panel.target);
    lanes->add_errors(READ_ONLY(m->error), at, feedback, n_cols, m->panel.target, IQ_SUPERBLOCK);
    if (!job->again) return;
    lanes->add_errors(READ_ONLY(m->error) + after, n_cols - after, feedback + after * n_cols, n_cols, m->panel.target,
                      IQ_SUPERBLOCK);
    memcpy(m->panel.weight, m->panel.target, sizeof m->panel.weight); /* see feedback.h */
}

/* What a later pass has to beat. */
static void measure_old_codes(const iq_feedback_job *job, size_t at) {
    feedback_memory *m = job->memory;
    for (size_t c = 0; c < IQ_SUPERBLOCK; c++) {
        for (size_t lane = 0; lane < IQ_LANES; lane++) {
            const float moved = m->panel.weight[c][lane] - m->weight[at + c][lane];
            m->best.error[c][lane] = m->error[at + c][lane] + moved;
        }
    }
    job->search->feedback->measure(&m->panel, &m->best);
}

static void store_errors(feedback_memory *m, size_t at) {
    for (size_t c = 0; c < IQ_SUPERBLOCK; c++) {
        for (size_t lane = 0; lane < IQ_LANES; lane++) {
            const float moved = m->panel.weight[c][lane] - m->weight[at + c][lane];
            m->error[at + c][lane] = m->best.error[c][lane] - moved;
        }
    }
}

static void pack_lane(const iq_feedback_job *job, size_t lane, uint8_t *block) {
    const feedback_memory *m = job->memory;
    const bool pairs = m->book.kind == IQ_BOOK_PAIRS; /* their codes do not stand for one column each */
    iq_superblock s = {.d = iq_f32_to_f16(m->best.d[lane] * m->unit[lane])};
    for (size_t sb = 0; sb < IQ_SUPERBLOCK / job->format->sub; sb++) {
        s.k[sb] = (int16_t)m->best.k[sb][lane];
        s.shifted |= (uint16_t)((m->best.shift[sb][lane] != 0.0f) << sb);
    }
    for (size_t c = 0; c < IQ_SUPERBLOCK; c++) s.code[pairs ? c : m->order[c]] = m->best.code[c][lane];
    job->format->pack(&s, block);
}

static void encode_superblock(const iq_feedback_job *job, size_t at, const iq_feedback_rows_at_once *set) {
    feedback_memory *m = job->memory;
    float old_loss[IQ_LANES];
    load_panel(job, at);
    for (size_t lane = 0; lane < IQ_LANES; lane++) m->best.loss[lane] = INFINITY;
    if (job->again) measure_old_codes(job, at);
    memcpy(old_loss, m->best.loss, sizeof old_loss);
    memcpy(m->trial.d, m->row_d, sizeof m->row_d);
    if (job->format->row_meta_bytes) encode_under_trial_d(job);
    else search_superblock_d(job, at);
    store_errors(m, at);
    const size_t block_at = job->format->row_meta_bytes + at / IQ_SUPERBLOCK * job->format->block_bytes;
    for (size_t lane = 0; lane < set->n; lane++) {
        if (m->best.loss[lane] < old_loss[lane]) pack_lane(job, lane, set->rows + lane * job->row_bytes + block_at);
    }
}

iq_status iq_feedback_encode(const iq_feedback_job *job, const iq_feedback_rows_at_once *set, iq_error *error) {
    feedback_memory *m = job->memory;
    load_weights(job, set);
    if (job->again) {
        const iq_status status = load_errors(job, set, error);
        if (status != IQ_OK) return status;
    }
    if (job->format->row_meta_bytes) find_row_d(job, set);
    for (size_t lane = 0; lane < set->n; lane++) set->loss[lane] = 0.0f;
    for (size_t at = 0; at < job->n_cols; at += IQ_SUPERBLOCK) {
        encode_superblock(job, at, set);
        for (size_t i = 0; i < set->n; i++) set->loss[i] += m->best.loss[i] * m->unit[i] * m->unit[i];
    }
    for (size_t lane = 0; job->format->row_meta_bytes && lane < set->n; lane++) {
        iq_scaled_write_d(job->format, m->row_d[lane] * m->unit[lane], row_of_lane(job, set, lane));
    }
    return IQ_OK;
}
