/*
 * segmentstest.c: segments over a real QEMU, stopped at every step
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * By default a sweep stops at every twelfth point, from a random one on (--seed); with
 * -m slow at each.
 *
 * The oracle: which clusters were written since each checkpoint.  After any operation,
 * any stop and settling, the set since each checkpoint is exactly that, each covered
 * disk has one bitmap of ours, recording, and nothing else is left.
 */

#include "config.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkpoint_compact.h"
#include "checkpoint_enginepriv.h"
#include "checkpoint_error.h"
#include "checkpoint_healthpriv.h"
#include "checkpoint_segmentspriv.h"
#include "qsdguest.h"

#define MAX_CHECKPOINTS 16

/* What was written since checkpoint "c<i>": counts of distinct clusters. */
typedef struct TestOracle {
    QsdGuest *guest;
    guint next; /* next cluster to write, per disk */
    guint written[MAX_CHECKPOINTS][QSD_GUEST_DISKS]; /* since c<i> */
    gboolean covers[MAX_CHECKPOINTS][QSD_GUEST_DISKS];
    guint made; /* checkpoints so far */
} TestOracle;

static const gchar *const targets[QSD_GUEST_DISKS] = {"vda", "vdb"};

static void
testWrite(TestOracle *oracle, guint disk)
{
    guint i;

    qsdGuestWrite(oracle->guest, disk, oracle->next++ % QSD_GUEST_CLUSTERS);
    for (i = 0; i < oracle->made; i++)
        oracle->written[i][disk]++;
}

static virCheckpointSegments *
testSegments(TestOracle *oracle)
{
    g_autoptr(GError) error = NULL;
    virCheckpointSegments *segments =
        virCheckpointSegmentsNew(oracle->guest->slot, &oracle->guest->view, &error);

    g_assert_no_error(error);
    return segments;
}

/* Checkpoint "c<number>" of the disks in the bit mask @disks, and parking. */
static gboolean
testCreate(TestOracle *oracle, guint number, guint disks, GError **error)
{
    g_autoptr(virCheckpointSegments) segments = testSegments(oracle);
    g_autoptr(virCheckpointDef) def = virCheckpointDefNew();
    guint i;

    def->name = g_strdup_printf("c%u", number);
    def->disks =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointDiskDefFree);
    for (i = 0; i < QSD_GUEST_DISKS; i++)
        g_ptr_array_add(def->disks,
                        virCheckpointDiskDefNew(
                            targets[i], disks & 1u << i ? VIR_CHECKPOINT_DISK_BITMAP
                                                        : VIR_CHECKPOINT_DISK_NONE));
    if (!virCheckpointSegmentsCreate(segments, def, 0, NULL, error))
        return FALSE;
    virCheckpointSegmentsParkLast(segments);
    return TRUE;
}

static void
testCreated(TestOracle *oracle, guint disks)
{
    guint i;

    for (i = 0; i < QSD_GUEST_DISKS; i++)
        oracle->covers[oracle->made][i] = (disks & 1u << i) != 0;
    oracle->made++;
}

static void
testCreateWell(TestOracle *oracle, guint disks)
{
    g_autoptr(GError) error = NULL;

    testCreate(oracle, oracle->made, disks, &error);
    g_assert_no_error(error);
    testCreated(oracle, disks);
}

static gboolean
testDelete(TestOracle *oracle, guint number, GError **error)
{
    g_autoptr(virCheckpointSegments) segments = testSegments(oracle);
    g_autofree gchar *name = g_strdup_printf("c%u", number);
    const virCheckpointRecord *record =
        virCheckpointTreeByName(segments->records, name);
    g_autofree gchar *id = record ? g_strdup(record->id) : NULL;

    return id && virCheckpointSegmentsDelete(segments, id, error) &&
           virCheckpointSegmentsPark(segments, NULL, error) &&
           virCheckpointCompactDomain(oracle->guest->slot, error);
}

static void
testDeleted(TestOracle *oracle, guint number)
{
    guint i;

    for (i = 0; i < QSD_GUEST_DISKS; i++)
        oracle->covers[number][i] = FALSE;
}

static void
testSettle(TestOracle *oracle)
{
    g_autoptr(GError) error = NULL;

    virCheckpointRecoverySettle(NULL, oracle->guest->slot, &oracle->guest->view,
                                &error);
    g_assert_no_error(error);
}

/* The number of clusters in the set since @record. */
static guint64
testCount(virCheckpointSegments *segments,
          const virCheckpointRecord *record,
          const gchar *target)
{
    virCheckpointMonitor *monitor = segments->view->monitor;
    g_autoptr(GError) error = NULL;
    g_autoptr(virCheckpointGraph) graph = NULL;
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    guint64 count;

    virCheckpointSegmentsSince(segments, record, target, target, "since", FALSE,
                               &error);
    g_assert_no_error(error);
    graph = virCheckpointGraphQuery(monitor, &error);
    g_assert_no_error(error);
    count = virCheckpointNodeBitmap(virCheckpointGraphNode(graph, target), "since")
                ->countBytes;
    virCheckpointTxnRemove(txn, target, "since");
    virCheckpointTxnRun(txn, monitor, &error);
    g_assert_no_error(error);
    return count / QSD_GUEST_CLUSTER;
}

/* Everything that must be true at rest. */
static void
testCheck(TestOracle *oracle)
{
    g_autoptr(virCheckpointSegments) segments = testSegments(oracle);
    guint i;
    guint d;

    for (d = 0; d < QSD_GUEST_DISKS; d++) {
        const virCheckpointNode *node =
            virCheckpointGraphNode(segments->graph, targets[d]);
        gboolean covered = FALSE;

        for (i = 0; i < oracle->made; i++) {
            g_autofree gchar *name = g_strdup_printf("c%u", i);
            const virCheckpointRecord *record =
                virCheckpointTreeByName(segments->records, name);

            if (!oracle->covers[i][d])
                continue;
            covered = TRUE;
            g_assert_nonnull(record);
            g_assert_cmpint(record->state, ==, VIR_CHECKPOINT_RECORD_READY);
            g_assert_cmpuint(testCount(segments, record, targets[d]), ==,
                             oracle->written[i][d]);
        }
        g_assert_cmpuint(node->bitmaps->len, ==, covered ? 1 : 0);
        if (covered) {
            const virCheckpointBitmapInfo *info = g_ptr_array_index(node->bitmaps, 0);

            g_assert_true(g_str_has_prefix(info->name, VIR_CHECKPOINT_BITMAP_PREFIX));
            g_assert_true(info->recording && info->persistent);
        }
    }
    g_assert_cmpuint(qsdGuestStrayNodes(oracle->guest), ==, 0);
}

/* c0 of both disks, c1 of vda, c2 of both; writes in between. */
static void
testSetUp(TestOracle *oracle)
{
    static const guint disks[] = {3, 1, 3};
    guint i;

    oracle->guest = qsdGuestNew();
    for (i = 0; i < G_N_ELEMENTS(disks); i++) {
        testCreateWell(oracle, disks[i]);
        testWrite(oracle, 0);
        testWrite(oracle, 1);
        testWrite(oracle, 0);
    }
    testCheck(oracle);
}

static void
testOracleClear(TestOracle *oracle)
{
    qsdGuestFree(oracle->guest);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(TestOracle, testOracleClear)

static gboolean
testSkip(void)
{
    if (qsdGuestPossible())
        return FALSE;
    g_test_skip("needs qemu-storage-daemon, qemu-img and qemu-io");
    return TRUE;
}

static void
testEveryDeletion(void)
{
    g_auto(TestOracle) oracle = {0};
    guint order[] = {1, 2, 0};
    guint i;

    if (testSkip())
        return;
    testSetUp(&oracle);
    for (i = 0; i < G_N_ELEMENTS(order); i++) {
        g_autoptr(GError) error = NULL;

        testDelete(&oracle, order[i], &error);
        g_assert_no_error(error);
        testDeleted(&oracle, order[i]);
        testCheck(&oracle);
        testWrite(&oracle, 0);
        testCheck(&oracle);
    }
}

static void
testCleanRestartKeepsAll(void)
{
    g_auto(TestOracle) oracle = {0};

    if (testSkip())
        return;
    testSetUp(&oracle);
    qsdGuestRestart(oracle.guest);
    testSettle(&oracle);
    testWrite(&oracle, 1);
    testCheck(&oracle);
}

/* What a killed QEMU leaves is shown by removing the active bitmap behind our back. */
static void
testLossIsSaidAndTrackingRestarts(void)
{
    g_auto(TestOracle) oracle = {0};
    g_autoptr(virCheckpointSegments) segments = NULL;
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    g_autoptr(GError) error = NULL;
    const virCheckpointNode *node;

    if (testSkip())
        return;
    testSetUp(&oracle);
    segments = testSegments(&oracle);
    node = virCheckpointGraphNode(segments->graph, "vda");
    virCheckpointTxnRemove(
        txn, "vda",
        ((virCheckpointBitmapInfo *)g_ptr_array_index(node->bitmaps, 0))->name);
    virCheckpointTxnRun(txn, segments->view->monitor, &error);
    g_assert_no_error(error);
    g_test_expect_message("virtcheckpoint", G_LOG_LEVEL_WARNING, "*vda*were lost*");
    testSettle(&oracle);
    g_test_assert_expected_messages();
    virCheckpointSegmentsRefresh(segments, &error);
    g_assert_no_error(error);
    g_assert_false(virCheckpointSegmentsSince(
        segments, virCheckpointTreeByName(segments->records, "c0"), "vda", "vda",
        "since", FALSE, &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CHECKPOINT_INCONSISTENT);
    g_assert_nonnull(strstr(error->message, "'c2'"));
    g_clear_error(&error);
    /* The other disk is not concerned, and a new checkpoint works for both. */
    oracle.covers[0][0] = oracle.covers[1][0] = oracle.covers[2][0] = FALSE;
    testCreateWell(&oracle, 3);
    testWrite(&oracle, 0);
    testCheck(&oracle);
}

/* A deletion that did not end leaves two records that name what records. */
static void
testHandedOnIsNotFrozen(void)
{
    g_auto(TestOracle) oracle = {0};
    g_autoptr(virCheckpointSegments) segments = NULL;
    g_autoptr(GError) failed = NULL;
    g_autoptr(GError) waits = NULL;
    const virCheckpointNode *top;
    const virCheckpointBitmapInfo *active;

    if (testSkip())
        return;
    testSetUp(&oracle);
    g_setenv("VIRT_CHECKPOINT_FAULTS", "delete/handed-over@1=fail", TRUE);
    g_assert_false(testDelete(&oracle, 2, &failed));
    g_unsetenv("VIRT_CHECKPOINT_FAULTS");
    segments = testSegments(&oracle);
    g_assert_false(virCheckpointSegmentsPark(segments, NULL, &waits));
    g_assert_nonnull(strstr(waits->message, "cannot be parked yet"));
    top = virCheckpointGraphNode(segments->graph, "vda");
    active = g_ptr_array_index(top->bitmaps, 0);
    g_assert_true(active->recording);
    g_assert_false(virCheckpointSegmentsNodeHasReleased(segments, top));
    g_assert_cmpint(virCheckpointHealthRole(segments, active->name), ==,
                    VIR_CHECKPOINT_ROLE_ACTIVE);
    testSettle(&oracle);
    testDeleted(&oracle, 2);
    testWrite(&oracle, 0);
    testCheck(&oracle);
}

typedef gboolean (*TestOperation)(TestOracle *oracle, GError **error);

static gboolean
testOpCreate(TestOracle *oracle, GError **error)
{
    return testCreate(oracle, 3, 3, error);
}

static gboolean
testOpDeleteOldest(TestOracle *oracle, GError **error)
{
    return testDelete(oracle, 0, error);
}

static gboolean
testOpDeleteMiddle(TestOracle *oracle, GError **error)
{
    return testDelete(oracle, 1, error);
}

static gboolean
testOpDeleteNewest(TestOracle *oracle, GError **error)
{
    return testDelete(oracle, 2, error);
}

/* Runs @operation in a child that dies as @spec says; FALSE if it came through. */
static gboolean
testStoppedAs(TestOracle *oracle, TestOperation operation, const gchar *spec)
{
    pid_t child = fork();
    int status;

    g_assert_cmpint(child, >=, 0);
    if (child == 0) {
        alarm(120); /* what hangs fails */
        g_setenv("VIRT_CHECKPOINT_FAULTS", spec, TRUE);
        _exit(operation(oracle, NULL) ? 0 : 1);
    }
    g_assert_cmpint(waitpid(child, &status, 0), ==, child);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return TRUE;
    g_assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return FALSE;
}

static gboolean
testStopped(TestOracle *oracle, TestOperation operation, guint step)
{
    g_autofree gchar *spec = g_strdup_printf("*@%u=exit", step);

    return testStoppedAs(oracle, operation, spec);
}

/* The bitmap before one that is being made has stopped, which is no loss. */
static void
testUndecidedCreationLosesNothing(void)
{
    g_auto(TestOracle) oracle = {0};
    g_autoptr(virCheckpointSegments) segments = NULL;
    g_autoptr(GError) error = NULL;

    if (testSkip())
        return;
    testSetUp(&oracle);
    g_assert_true(testStoppedAs(&oracle, testOpCreate, "create/transaction=exit"));
    testWrite(&oracle, 0);
    segments = testSegments(&oracle);
    g_assert_false(virCheckpointSegmentsEnsure(segments, &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED);
    g_assert_nonnull(strstr(error->message, "'c3'"));
    testSettle(&oracle);
    testWrite(&oracle, 1);
    testCheck(&oracle);
}

/* How many points the last operation passed, by its log. */
static guint
testCountPoints(const gchar *log)
{
    g_autofree gchar *text = NULL;
    guint count = 0;
    const gchar *p;

    if (!g_file_get_contents(log, &text, NULL, NULL))
        return 0;
    for (p = text; (p = strchr(p, '\n')); p++)
        count++;
    return count;
}

/*
 * Runs @operation with an error at its @step-th point; FALSE if it has fewer.  It may
 * come through all the same: what cannot be parked now is parked later.
 */
static gboolean
testFailed(TestOracle *oracle, TestOperation operation, guint step)
{
    g_autofree gchar *spec = g_strdup_printf("*@%u=fail", step);
    g_autofree gchar *log = g_build_filename(oracle->guest->folder, "points.log", NULL);
    g_autoptr(GError) error = NULL;
    gboolean done;
    guint passed;

    g_setenv("VIRT_CHECKPOINT_FAULTS_LOG", log, TRUE);
    g_setenv("VIRT_CHECKPOINT_FAULTS", spec, TRUE);
    done = operation(oracle, &error);
    g_unsetenv("VIRT_CHECKPOINT_FAULTS");
    g_unsetenv("VIRT_CHECKPOINT_FAULTS_LOG");
    passed = testCountPoints(log);
    unlink(log);
    g_assert_true(done || passed >= step);
    return passed >= step;
}

/* A creation whose transaction got no answer stays recorded, also when QEMU shows none
 * of its bitmaps now and answers what is sent after it: it may run yet. */
static void
testUnansweredCreationStays(void)
{
    g_auto(TestOracle) oracle = {0};
    g_autoptr(virCheckpointSegments) segments = NULL;
    const virCheckpointRecord *record;

    if (testSkip())
        return;
    testSetUp(&oracle);
    g_setenv("VIRT_CHECKPOINT_FAULTS", "qmp/transaction/before@1=fail", TRUE);
    g_assert_false(testOpCreate(&oracle, NULL));
    g_unsetenv("VIRT_CHECKPOINT_FAULTS");
    segments = testSegments(&oracle);
    record = virCheckpointTreeByName(segments->records, "c3");
    g_assert_nonnull(record);
    g_assert_cmpint(record->state, ==, VIR_CHECKPOINT_RECORD_CREATING);
    testWrite(&oracle, 0);
    testSettle(&oracle);
    testWrite(&oracle, 1);
    testCheck(&oracle);
}

/* What became of the checkpoint in question is for the records to say. */
static void
testLearn(TestOracle *oracle, gint created, gint deleted)
{
    g_autoptr(virCheckpointSegments) segments = testSegments(oracle);
    g_autofree gchar *name = g_strdup_printf("c%d", created >= 0 ? created : deleted);
    gboolean there = virCheckpointTreeByName(segments->records, name) != NULL;

    if (created >= 0 && there)
        testCreated(oracle, 3);
    if (deleted >= 0 && !there)
        testDeleted(oracle, (guint)deleted);
}

static void
testSweep(TestOperation operation, gboolean die, gint created, gint deleted)
{
    const guint stride = g_test_slow() ? 1 : 12;
    gboolean stopped = TRUE;
    guint step;

    /* A park that fails is warned about; that is not what is tested here. */
    g_log_set_always_fatal(G_LOG_FATAL_MASK);
    for (step = (guint)g_test_rand_int_range(1, (gint)stride + 1); stopped;
         step += stride) {
        g_auto(TestOracle) oracle = {0};

        g_test_message("stopped at point %u", step);
        testSetUp(&oracle);
        stopped = die ? testStopped(&oracle, operation, step)
                      : testFailed(&oracle, operation, step);
        testWrite(&oracle, 0);
        testSettle(&oracle);
        /* That write came after the creation, if there was one. */
        testLearn(&oracle, created, deleted);
        if (created >= 0 && oracle.made > (guint)created)
            oracle.written[created][0]++;
        testWrite(&oracle, 1);
        testCheck(&oracle);
        testCreateWell(&oracle, 3);
        testWrite(&oracle, 0);
        testCheck(&oracle);
        g_assert_cmpuint(step, <, 600);
    }
    g_assert_cmpuint(step, >, 8);
}

typedef struct TestSweepCase {
    const gchar *name;
    TestOperation operation;
    gboolean die;
    gint created;
    gint deleted;
} TestSweepCase;

static void
testSweepCase(gconstpointer data)
{
    const TestSweepCase *which = data;

    if (testSkip())
        return;
    testSweep(which->operation, which->die, which->created, which->deleted);
}

static void
testIgnoreError(void *opaque, virErrorPtr error)
{
}

int
main(int argc, char **argv)
{
    static const TestSweepCase sweeps[] = {
        {"/segments/create-dies-at-every-step", testOpCreate, TRUE, 3, -1},
        {"/segments/create-fails-at-every-step", testOpCreate, FALSE, 3, -1},
        {"/segments/delete-oldest-dies-at-every-step", testOpDeleteOldest, TRUE, -1, 0},
        {"/segments/delete-middle-dies-at-every-step", testOpDeleteMiddle, TRUE, -1, 1},
        {"/segments/delete-middle-fails-at-every-step", testOpDeleteMiddle, FALSE, -1,
         1},
        {"/segments/delete-newest-dies-at-every-step", testOpDeleteNewest, TRUE, -1, 2},
    };
    guint i;

    virSetErrorFunc(NULL, testIgnoreError);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/segments/every-deletion", testEveryDeletion);
    g_test_add_func("/segments/clean-restart-keeps-all", testCleanRestartKeepsAll);
    g_test_add_func("/segments/handed-on-is-not-frozen", testHandedOnIsNotFrozen);
    g_test_add_func("/segments/loss-is-said-and-tracking-restarts",
                    testLossIsSaidAndTrackingRestarts);
    g_test_add_func("/segments/undecided-creation-loses-nothing",
                    testUndecidedCreationLosesNothing);
    g_test_add_func("/segments/unanswered-creation-stays", testUnansweredCreationStays);
    for (i = 0; i < G_N_ELEMENTS(sweeps); i++)
        g_test_add_data_func(sweeps[i].name, &sweeps[i], testSweepCase);
    return g_test_run();
}
