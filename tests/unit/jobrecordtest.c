/*
 * jobrecordtest.c: jobs come back whole, and move only as the table allows
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_error.h"
#include "checkpoint_job_record.h"

#include <string.h>

static virCheckpointJobRecord *
testJob(void)
{
    virCheckpointJobRecord *job = virCheckpointJobRecordNew();

    job->id = g_strdup("0123456789abcdef0123456789abcdef");
    job->target = g_strdup("vda");
    job->state = VIR_CHECKPOINT_JOB_COMMITTING;
    job->outcome = VIR_CHECKPOINT_JOB_FAILED;
    job->error = g_strdup("operation failed: copy to '/x':\n no space\n");
    job->errorCode = VIR_ERR_OPERATION_FAILED;
    job->finish = TRUE;
    job->verify = TRUE;
    job->endCheckpoints = TRUE;
    job->native = TRUE;
    job->full = TRUE;
    job->aside = TRUE;
    job->asideBegun = TRUE;
    job->offline = TRUE;
    job->leaving = TRUE;
    job->offlineSource = g_strdup("1:2:3.0:4.0");
    job->offlineLeft = g_strdup("2:2:3.0:4.0");
    job->sinceId = g_strdup("1123456789abcdef0123456789abcdef");
    job->since = g_strdup("c1");
    job->checkpointId = g_strdup("2123456789abcdef0123456789abcdef");
    job->checkpoint = g_strdup("c2");
    job->sourcePath = g_strdup("/img/s'<>&\n.qcow2");
    job->overlayPath = g_strdup("/img/o.qcow2");
    job->defined = g_strdup("/img/o.qcow2");
    job->destPath = g_strdup("/img/t.raw");
    job->destFormat = g_strdup("raw");
    job->destCreated = TRUE;
    job->destXml = g_strdup("<disk type='file'>\n  <source file='&lt;'/>\n</disk>");
    job->flags = G_MAXUINT;
    job->bandwidthBytes = G_MAXUINT64;
    job->granularity = 65536;
    job->bufSize = 1;
    job->sizeBytes = G_GUINT64_CONSTANT(1) << 40;
    job->workBytes = 2;
    job->startedUsec = G_GINT64_CONSTANT(1600000000000000);
    job->destId = g_strdup("1:2");
    job->resumeId = g_strdup("3123456789abcdef0123456789abcdef");
    job->covered = g_ptr_array_new_with_free_func(g_free);
    g_ptr_array_add(job->covered, g_strdup("a.1.qcow2@1:2"));
    return job;
}

static void
testJobRoundTrip(void)
{
    g_autoptr(virCheckpointJobRecord) job = testJob();
    g_autoptr(virCheckpointJobRecord) copy = virCheckpointJobRecordCopy(job);
    g_autoptr(virCheckpointJobRecord) back = NULL;
    g_autofree gchar *text = virCheckpointJobRecordFormat(copy);
    g_autofree gchar *again = NULL;
    g_autoptr(GError) error = NULL;

    back = virCheckpointJobRecordParse(text, &error);
    g_assert_no_error(error);
    again = virCheckpointJobRecordFormat(back);
    g_assert_cmpstr(again, ==, text);
    g_assert_cmpint(back->state, ==, job->state);
    g_assert_cmpint(back->outcome, ==, job->outcome);
    g_assert_cmpstr(back->error, ==, job->error);
    g_assert_cmpint(back->errorCode, ==, job->errorCode);
    g_assert_true(back->finish && back->verify && back->native && back->full &&
                  back->destCreated);
    g_assert_true(back->endCheckpoints);
    g_assert_true(back->aside && back->asideBegun && back->offline && back->leaving);
    g_assert_cmpstr(back->offlineSource, ==, job->offlineSource);
    g_assert_cmpstr(back->offlineLeft, ==, job->offlineLeft);
    g_assert_null(back->offlineDest);
    g_assert_cmpstr(back->sinceId, ==, job->sinceId);
    g_assert_cmpstr(back->since, ==, job->since);
    g_assert_cmpstr(back->checkpointId, ==, job->checkpointId);
    g_assert_cmpstr(back->checkpoint, ==, job->checkpoint);
    g_assert_cmpstr(back->sourcePath, ==, job->sourcePath);
    g_assert_cmpstr(back->overlayPath, ==, job->overlayPath);
    g_assert_cmpstr(back->defined, ==, job->defined);
    g_assert_cmpstr(back->destPath, ==, job->destPath);
    g_assert_cmpstr(back->destFormat, ==, job->destFormat);
    g_assert_cmpstr(back->destXml, ==, job->destXml);
    g_assert_cmpuint(back->flags, ==, job->flags);
    g_assert_cmpuint(back->bandwidthBytes, ==, job->bandwidthBytes);
    g_assert_cmpuint(back->granularity, ==, job->granularity);
    g_assert_cmpuint(back->bufSize, ==, job->bufSize);
    g_assert_cmpuint(back->sizeBytes, ==, job->sizeBytes);
    g_assert_cmpuint(back->workBytes, ==, job->workBytes);
    g_assert_cmpint(back->startedUsec, ==, job->startedUsec);
    g_assert_cmpstr(back->destId, ==, job->destId);
    g_assert_cmpstr(back->resumeId, ==, job->resumeId);
    g_assert_cmpuint(back->covered->len, ==, 1);
}

/* What is not known yet is not there. */
static void
testJobSparse(void)
{
    g_autoptr(virCheckpointJobRecord) job = virCheckpointJobRecordNew();
    g_autoptr(virCheckpointJobRecord) back = NULL;
    g_autofree gchar *text = NULL;

    job->id = g_strdup("0123456789abcdef0123456789abcdef");
    job->target = g_strdup("vda");
    job->checkpoint = g_strdup("c1");
    text = virCheckpointJobRecordFormat(job);
    back = virCheckpointJobRecordParse(text, NULL);
    g_assert_nonnull(back);
    g_assert_cmpint(back->state, ==, VIR_CHECKPOINT_JOB_PREPARING);
    g_assert_cmpstr(back->checkpoint, ==, "c1");
    g_assert_null(back->checkpointId);
    g_assert_null(back->since);
    g_assert_null(back->error);
    g_assert_null(back->destXml);
    g_assert_null(back->destPath);
    g_assert_null(back->defined);
    g_assert_null(back->covered);
    g_assert_false(back->finish || back->native || back->full || back->destCreated);
}

static void
testJobMalformed(void)
{
    static const struct {
        const gchar *from;
        const gchar *to;
    } changes[] = {
        {"version='1'", "version='10'"},
        {"<id>0", "<id>/"},
        {"<disk>vda</disk>", ""},
        {"<disk>vda</disk>", "<disk/>"},
        {"committing", "committed"},
        {"<outcome>failed", "<outcome>bad"},
        {"<flags>4294967295", "<flags>4294967296"},
        {"<granularity unit='bytes'>65536", "<granularity>x"},
        {"<started unit='us'>1", "<started>-1"},
        {"<errorCode>9</errorCode>", ""},
    };
    g_autoptr(virCheckpointJobRecord) job = testJob();
    g_autofree gchar *text = virCheckpointJobRecordFormat(job);
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(changes); i++) {
        g_autoptr(GString) bad = g_string_new(text);
        g_autoptr(GError) error = NULL;

        g_assert_cmpuint(g_string_replace(bad, changes[i].from, changes[i].to, 1), ==,
                         1);
        g_assert_null(virCheckpointJobRecordParse(bad->str, &error));
        g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_XML_ERROR);
    }
}

static void
testJobMoves(void)
{
    /* Row: from; column: to; in the order of the enum. */
    static const gchar *const allowed[] = {
        "01.1...1", /* preparing: overlaying, native, cleaning */
        "..1...11", /* overlaying: bulk, committing, cleaning */
        "....1.1.", /* bulk: mirroring, committing */
        ".1.....1", /* native: overlaying, cleaning */
        ".....11.", /* mirroring: pivoting, committing */
        "....1.11", /* pivoting: mirroring, committing, cleaning */
        ".......1", /* committing: cleaning */
        "......1.", /* cleaning: the record goes; committing */
    };
    guint from;
    guint to;

    G_STATIC_ASSERT(G_N_ELEMENTS(allowed) == VIR_CHECKPOINT_JOB_LAST);
    for (from = 0; from < VIR_CHECKPOINT_JOB_LAST; from++) {
        for (to = 0; to < VIR_CHECKPOINT_JOB_LAST; to++)
            g_assert_cmpint(virCheckpointJobStateMayMove(from, to), ==,
                            allowed[from][to] == '1');
    }
    g_assert_cmpstr(virCheckpointJobStateToString(VIR_CHECKPOINT_JOB_CLEANING), ==,
                    "cleaning");
    g_assert_cmpstr(virCheckpointJobOutcomeToString(VIR_CHECKPOINT_JOB_CANCELED), ==,
                    "canceled");
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/job-record/round-trip", testJobRoundTrip);
    g_test_add_func("/job-record/what-is-unknown-is-absent", testJobSparse);
    g_test_add_func("/job-record/malformed-is-refused", testJobMalformed);
    g_test_add_func("/job-record/moves", testJobMoves);
    return g_test_run();
}
