/*
 * virshjobtest.c: a copy is followed to its end, and told as stock tells it
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "virsh_job.h"

#define WAIT VIR_CHECKPOINT_VIRSH_JOB_WAIT
#define EVENTS VIR_CHECKPOINT_VIRSH_JOB_EVENTS
#define VERBOSE VIR_CHECKPOINT_VIRSH_JOB_VERBOSE
#define ASYNC VIR_CHECKPOINT_VIRSH_JOB_ASYNC
#define PIVOT VIR_CHECKPOINT_VIRSH_JOB_PIVOT
#define FINISH VIR_CHECKPOINT_VIRSH_JOB_FINISH

/* A libvirt that plays a script, one letter a poll: a digit is a job at so many tenths,
 * '=' one with nothing left, '-' no job, '!' an error; r, c, f, a are events (ready,
 * completed, failed, aborted) with the job at half, ^ is Ctrl-C.  The last one stays.
 */
typedef struct {
    const gchar *script;
    gboolean abortFails;
    gint64 clock;
    gboolean stopped;
    gint status;
    GString *aborts; /* flags of each abort */
} testLibvirt;

static gint
testInfo(gpointer opaque, virDomainBlockJobInfo *info)
{
    testLibvirt *libvirt = opaque;
    gchar step = *libvirt->script;

    if (libvirt->script[1])
        libvirt->script++;
    info->end = 10;
    info->cur = g_ascii_isdigit(step) ? (guint64)(step - '0') : step == '=' ? 10 : 5;
    if (step == 'r')
        libvirt->status = VIR_DOMAIN_BLOCK_JOB_READY;
    else if (step == 'c')
        libvirt->status = VIR_DOMAIN_BLOCK_JOB_COMPLETED;
    else if (step == 'f')
        libvirt->status = VIR_DOMAIN_BLOCK_JOB_FAILED;
    else if (step == 'a')
        libvirt->status = VIR_DOMAIN_BLOCK_JOB_CANCELED;
    else if (step == '^')
        libvirt->stopped = TRUE;
    return step == '!' ? -1 : step == '-' ? 0 : 1;
}

static gint
testAbort(gpointer opaque, guint flags)
{
    testLibvirt *libvirt = opaque;

    g_string_append_printf(libvirt->aborts, "%u ", flags);
    return libvirt->abortFails ? -1 : 0;
}

static gint
testEvent(gpointer opaque, guint ms)
{
    testLibvirt *libvirt = opaque;

    libvirt->clock += ms;
    return libvirt->status;
}

static gint64
testNow(gpointer opaque)
{
    return ((testLibvirt *)opaque)->clock;
}

static gboolean
testInterrupted(gpointer opaque)
{
    return ((testLibvirt *)opaque)->stopped;
}

static gchar *
testWhy(gpointer opaque)
{
    return ((testLibvirt *)opaque)->abortFails ? g_strdup("no room\nleft") : NULL;
}

static const virCheckpointVirshJobOps testOps = {testInfo, testAbort,       testEvent,
                                                 testNow,  testInterrupted, testWhy};

typedef struct {
    const gchar *script;
    guint flags;
    guint timeoutMs;
    gboolean abortFails;
    gboolean want;
    const gchar *out;
    const gchar *err;
    const gchar *aborts;
} testCase;

static const testCase testCases[] = {
    {"5", 0, 0, FALSE, TRUE, "Block Copy started", "", ""},
    {"04r", WAIT | EVENTS, 0, FALSE, TRUE, "\nNow in mirroring phase", "", ""},
    {"04r", WAIT | EVENTS | VERBOSE, 0, FALSE, TRUE, "\nNow in mirroring phase",
     "\rBlock Copy: [  0 %]\rBlock Copy: [ 40 %]\rBlock Copy: [100 %]", ""},
    {"r", WAIT | EVENTS | PIVOT, 0, FALSE, TRUE, "\nSuccessfully pivoted", "", "2 "},
    {"r", WAIT | EVENTS | PIVOT, 0, TRUE, FALSE, "",
     "error: failed to pivot job for disk vda\n", "2 "},
    /* The finish parameter: the job ends by itself. */
    {"0=c", WAIT | EVENTS | FINISH, 0, FALSE, TRUE, "\nSuccessfully copied", "", ""},
    {"0=-c", WAIT | EVENTS | FINISH | VERBOSE, 0, FALSE, TRUE, "\nSuccessfully copied",
     "\rBlock Copy: [  0 %]\rBlock Copy: [100 %]", ""},
    {"r", WAIT | EVENTS | FINISH, 0, FALSE, TRUE, "\nSuccessfully copied", "", "0 "},
    {"r", WAIT | EVENTS | FINISH, 0, TRUE, FALSE, "",
     "error: failed to finish job for disk vda\n", "0 "},
    {"5f", WAIT | EVENTS, 0, FALSE, FALSE, "\nCopy failed", "", ""},
    {"5f", WAIT | EVENTS, 0, TRUE, FALSE, "\nCopy failed",
     "error: no room\nerror: left\n", ""},
    {"5a", WAIT | EVENTS | FINISH, 0, FALSE, FALSE, "\nCopy aborted", "", ""},
    {"5^", WAIT | EVENTS, 0, FALSE, FALSE, "\nCopy aborted", "", "0 "},
    {"5^", WAIT | EVENTS | ASYNC, 0, FALSE, FALSE, "\nCopy aborted", "", "1 "},
    {"5^", WAIT | EVENTS, 0, TRUE, FALSE, "",
     "error: failed to abort job for disk vda\n", "0 "},
    {"5", WAIT | EVENTS, 3000, FALSE, FALSE, "\nCopy aborted", "", "0 "},
    {"5!", WAIT | EVENTS, 0, FALSE, FALSE, "",
     "error: failed to query job for disk vda\n", ""},
    {"5-", WAIT | EVENTS, 0, FALSE, FALSE, "",
     "error: job for disk vda is gone, its end was not reported\n", ""},
    /* Without events. */
    {"5-", WAIT | FINISH, 0, FALSE, TRUE, "\nSuccessfully copied", "", ""},
    {"==5=====", WAIT, 0, FALSE, TRUE, "\nNow in mirroring phase", "", ""},
    {"==========-", WAIT | FINISH, 0, FALSE, TRUE, "\nSuccessfully copied", "", ""},
};

/* Without what stands behind the percents. */
static gchar *
testShort(const gchar *err)
{
    g_auto(GStrv) lines = g_strsplit(err, "\r", -1);
    gsize i;

    for (i = 0; lines[i]; i++) {
        gchar *end = strchr(lines[i], ']');

        if (end)
            end[1] = '\0';
    }
    return g_strjoinv("\r", lines);
}

static void
testFollow(gconstpointer data)
{
    const testCase *one = data;
    testLibvirt libvirt = {.script = one->script,
                           .abortFails = one->abortFails,
                           .status = -1,
                           .aborts = g_string_new(NULL)};
    virCheckpointVirshUi ui = {0};
    char *out = NULL;
    char *err = NULL;
    gsize outSize = 0;
    gsize errSize = 0;
    g_autofree gchar *shown = NULL;

    ui.out = open_memstream(&out, &outSize);
    ui.err = open_memstream(&err, &errSize);
    g_assert_true(virCheckpointVirshJobFollow(&testOps, &libvirt, &ui, "vda",
                                              one->flags, one->timeoutMs) == one->want);
    fclose(ui.out);
    fclose(ui.err);
    g_assert_cmpstr(out, ==, one->out);
    shown = testShort(err);
    g_assert_cmpstr(shown, ==, one->err);
    g_assert_cmpstr(libvirt.aborts->str, ==, one->aborts);
    g_assert_cmpint(libvirt.clock, <, 60000);
    g_string_free(libvirt.aborts, TRUE);
    free(out);
    free(err);
}

static void
testQuiet(void)
{
    virCheckpointVirshUi ui = {.quiet = TRUE};
    char *out = NULL;
    gsize size = 0;

    ui.out = open_memstream(&out, &size);
    virCheckpointVirshUiExtra(&ui, "Block Copy started");
    virCheckpointVirshUiDone(&ui, 1500);
    ui.timing = TRUE;
    virCheckpointVirshUiDone(&ui, 1500);
    fclose(ui.out);
    g_assert_cmpstr(out, ==, "\n(Time: 1.500 ms)\n\n");
    free(out);
}

/* Not 100 before the end, and no overflow at 16 EiB. */
static void
testProgress(void)
{
    static const virCheckpointVirshProgress steps[] = {
        {G_MAXUINT64 - 1, G_MAXUINT64, 0},
        {0, G_MAXUINT64, 1},
        {0, 0, 0},
        {1, 1, 0},
        {3 << 20, 10 << 20, 1 << 20},
        {10 << 20, 10 << 20, 2048},
        {1, 7300, 1},
    };
    static const gchar *const want[] = {
        "Block Copy: [ 99 %] 16777216.0 TiB of 16777216.0 TiB",
        "Block Copy: [  0 %] 0 B of 16777216.0 TiB, 1 B/s, 5124095576030431:00:15 left",
        "Block Copy: [100 %] 1 B of 1 B",
        "Block Copy: [ 30 %] 3.0 MiB of 10.0 MiB, 1.0 MiB/s, 0:07 left",
        "Block Copy: [100 %] 10.0 MiB of 10.0 MiB, 2.0 KiB/s",
        "Block Copy: [  0 %] 1 B of 7.1 KiB, 1 B/s, 2:01:39 left",
    };
    virCheckpointVirshUi ui = {0};
    g_auto(GStrv) lines = NULL;
    char *err = NULL;
    gsize size = 0;
    gsize i;

    ui.out = stdout;
    ui.err = open_memstream(&err, &size);
    for (i = 0; i < G_N_ELEMENTS(steps); i++)
        virCheckpointVirshUiProgress(&ui, &steps[i]);
    fclose(ui.err);
    lines = g_strsplit(err, "\r", -1);
    g_assert_cmpuint(g_strv_length(lines), ==, G_N_ELEMENTS(want) + 1);
    for (i = 0; i < G_N_ELEMENTS(want); i++)
        g_assert_cmpstr(g_strchomp(lines[i + 1]), ==, want[i]);
    free(err);
}

int
main(int argc, char **argv)
{
    gsize i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < G_N_ELEMENTS(testCases); i++) {
        g_autofree gchar *name =
            g_strdup_printf("/virsh/job/follow/%" G_GSIZE_FORMAT, i);

        g_test_add_data_func(name, &testCases[i], testFollow);
    }
    g_test_add_func("/virsh/ui/quiet-and-timing", testQuiet);
    g_test_add_func("/virsh/ui/progress-ends-at-the-end", testProgress);
    return g_test_run();
}
