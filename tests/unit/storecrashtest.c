/*
 * storecrashtest.c: the store after a crash at every step
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A child runs a list of operations on a store and dies at its Nth step; the parent
 * then opens the store and looks.  It must find what the operations that were answered
 * left behind, or one operation more, and nothing else.  N goes up until the child
 * completes.
 *
 * Steps are the fault points in the store, and the calls that change names or sync,
 * also those inside GLib: this program's own fsync, rename and so on stand before
 * libc's. With a power cut the child also undoes, as it dies, what was not synced:
 * names that changed since their directory was, contents since the file was.  An exit
 * alone keeps the page cache and so cannot show a missing sync.
 *
 * With an I/O error nobody dies: the Nth call fails, once or from then on.
 */

#include "config.h"

#include "storelib.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define TEST_REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* A name that changed and whose directory was not synced since. */
typedef struct testName {
    gchar *path;
    gchar *old; /* contents before, NULL: there was none */
    gsize oldLength;
} testName;

static gint testStepsLeft = -1; /* -1: not counting */
static gboolean testPowerCut;
static gint testCallsLeft = -1; /* -1: none fails, 0: each does */
static gboolean testFailsOnce;  /* a disk that is well again at once */
static gboolean testCallHasFailed;
static GPtrArray *testNames;   /* testName*, oldest first */
static GHashTable *testSynced; /* inode -> bytes that are synced */
static volatile guint *testAnswered;
static gchar *testRoot;

static void
testNameFree(gpointer opaque)
{
    testName *name = opaque;

    g_free(name->path);
    g_free(name->old);
    g_free(name);
}

/* What a power cut would have left of the contents of @path. */
static void
testForgetContents(const gchar *path)
{
    struct stat sb;
    guint synced = 0;

    if (stat(path, &sb) < 0 || !S_ISREG(sb.st_mode))
        return;
    synced = GPOINTER_TO_UINT(
        g_hash_table_lookup(testSynced, GUINT_TO_POINTER((guint)sb.st_ino)));
    if (sb.st_size > synced && truncate(path, synced) < 0)
        abort();
}

static void
testDie(void)
{
    g_autofree gchar *folder = testFile(testRoot, "");
    g_autoptr(GDir) dir = NULL;
    const gchar *name = NULL;
    guint i;

    testStepsLeft = -1;
    if (!testPowerCut)
        _exit(99);
    dir = g_dir_open(folder, 0, NULL);
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree gchar *path = testFile(testRoot, name);

        testForgetContents(path);
    }
    for (i = testNames->len; i > 0; i--) {
        const testName *changed = g_ptr_array_index(testNames, i - 1);
        int fd = -1;

        TEST_REAL(unlink)(changed->path);
        if (!changed->old)
            continue;
        fd = open(changed->path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (write(fd, changed->old, changed->oldLength) != (gssize)changed->oldLength)
            abort();
        close(fd);
    }
    _exit(99);
}

/* One step is about to be taken. */
static void
testStep(void)
{
    if (testStepsLeft > 0 && --testStepsLeft == 0)
        testDie();
}

/* TRUE, with errno: this call is one that the disk refuses. */
static gboolean
testCallFails(void)
{
    if (testCallsLeft > 0)
        testCallsLeft--;
    if (testCallsLeft != 0)
        return FALSE;
    if (testFailsOnce)
        testCallsLeft = -1;
    testCallHasFailed = TRUE;
    errno = EIO;
    return TRUE;
}

/* @path is about to change what it names. */
static void
testNoteName(const gchar *path)
{
    testName *name = NULL;

    if (testStepsLeft < 0)
        return;
    name = g_new0(testName, 1);
    name->path = g_strdup(path);
    if (!g_file_get_contents(path, &name->old, &name->oldLength, NULL))
        name->old = NULL;
    g_ptr_array_add(testNames, name);
}

static void
testNoteSync(int fd)
{
    g_autofree gchar *link = g_strdup_printf("/proc/self/fd/%d", fd);
    g_autofree gchar *path = g_file_read_link(link, NULL);
    struct stat sb;
    guint i;

    if (testStepsLeft < 0 || fstat(fd, &sb) < 0)
        return;
    if (S_ISREG(sb.st_mode))
        g_hash_table_insert(testSynced, GUINT_TO_POINTER((guint)sb.st_ino),
                            GUINT_TO_POINTER((guint)sb.st_size));
    for (i = testNames->len; i > 0 && S_ISDIR(sb.st_mode); i--) {
        const testName *name = g_ptr_array_index(testNames, i - 1);
        g_autofree gchar *dir = g_path_get_dirname(name->path);

        if (g_strcmp0(dir, path) == 0)
            g_ptr_array_remove_index(testNames, i - 1);
    }
}

/* The calls that this program puts before libc's; GLib's go here, too. */
#define TEST_EXPORT __attribute__((visibility("default")))

TEST_EXPORT int
fsync(int fd)
{
    int rc = 0;

    if (testCallFails())
        return -1;
    testStep();
    rc = TEST_REAL(fsync)(fd);
    testNoteSync(fd);
    return rc;
}

TEST_EXPORT int
fdatasync(int fd)
{
    int rc = 0;

    if (testCallFails())
        return -1;
    testStep();
    rc = TEST_REAL(fdatasync)(fd);
    testNoteSync(fd);
    return rc;
}

/* Is no step: what is written by halves has no name yet, or is cut when it is read. */
TEST_EXPORT ssize_t
write(int fd, const void *data, size_t bytes)
{
    return testCallFails() ? -1 : TEST_REAL(write)(fd, data, bytes);
}

TEST_EXPORT int
rename(const char *from, const char *to)
{
    if (testCallFails())
        return -1;
    testStep();
    testNoteName(from);
    testNoteName(to);
    return TEST_REAL(rename)(from, to);
}

TEST_EXPORT int
unlink(const char *path)
{
    if (testCallFails())
        return -1;
    testStep();
    testNoteName(path);
    return TEST_REAL(unlink)(path);
}

/* The operations */

static gboolean
testSaveState(virCheckpointStoreDomain *domain,
              gchar digit,
              virCheckpointRecordState state)
{
    g_autoptr(virCheckpointRecord) record = testRecord(digit, "c", "used.0.qcow2");

    record->state = state;
    return virCheckpointStoreSave(domain, record, NULL);
}

static gboolean
testOperation(virCheckpointStoreDomain *domain, guint number)
{
    const gchar *const bitmaps[] = {"virtcheckpoint.x", "virtcheckpoint.y", NULL};
    const gchar *const more[] = {"virtcheckpoint.z", NULL};
    g_autoptr(virCheckpointJobRecord) job = testJob('c');
    g_autofree gchar *a = testId('a');
    g_autofree gchar *c = testId('c');

    switch (number) {
    case 0:
        return virCheckpointStoreJournalAdd(domain, bitmaps, NULL);
    case 1:
        return testSaveState(domain, 'a', VIR_CHECKPOINT_RECORD_CREATING);
    case 2:
        return testSaveState(domain, 'b', VIR_CHECKPOINT_RECORD_READY);
    case 3:
        return testSaveState(domain, 'a', VIR_CHECKPOINT_RECORD_READY);
    case 4:
        return virCheckpointStoreJournalAdd(domain, more, NULL);
    case 5:
        return virCheckpointStoreSaveJob(domain, job, NULL);
    case 6:
        job->state = VIR_CHECKPOINT_JOB_CLEANING;
        return virCheckpointStoreSaveJob(domain, job, NULL);
    case 7:
        return virCheckpointStoreRemoveJob(domain, c, NULL);
    case 8:
        return virCheckpointStoreRemove(domain, a, NULL);
    case 9:
        return virCheckpointStoreCollect(domain, NULL);
    case 10:
        return virCheckpointStoreDrop(domain, NULL);
    default:
        g_assert_not_reached();
    }
}

#define TEST_OPERATIONS 11

static gint
testCompareText(gconstpointer a, gconstpointer b)
{
    return g_strcmp0(*(gchar *const *)a, *(gchar *const *)b);
}

/* Returns: (transfer full): all that the store says of the domain. */
static gchar *
testState(virCheckpointStoreDomain *domain)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) records = virCheckpointStoreList(domain, NULL);
    g_autoptr(GPtrArray) jobs = virCheckpointStoreListJobs(domain, NULL);
    g_autoptr(GPtrArray) bad = virCheckpointStoreBadFiles(domain);
    guint i;

    g_assert_cmpuint(bad->len, ==, 0);
    for (i = 0; i < records->len; i++) {
        const virCheckpointRecord *record = g_ptr_array_index(records, i);

        g_ptr_array_add(words, g_strdup_printf("%c%u", *record->id, record->state));
    }
    for (i = 0; i < jobs->len; i++) {
        const virCheckpointJobRecord *job = g_ptr_array_index(jobs, i);

        g_ptr_array_add(words, g_strdup_printf("%c%u", *job->id, job->state));
    }
    if (virCheckpointStoreJournalHas(domain, "virtcheckpoint.y"))
        g_ptr_array_add(words, g_strdup("y"));
    if (virCheckpointStoreJournalHas(domain, "virtcheckpoint.z"))
        g_ptr_array_add(words, g_strdup("z"));
    if (testHasFile(testRoot, "used.0.qcow2"))
        g_ptr_array_add(words, g_strdup("used"));
    if (testHasFile(testRoot, "unused.0.qcow2"))
        g_ptr_array_add(words, g_strdup("unused"));
    g_ptr_array_sort(words, testCompareText);
    g_ptr_array_add(words, NULL);
    return g_strjoinv(" ", (gchar **)words->pdata);
}

static virCheckpointStoreDomain *
testStart(virCheckpointStore *store)
{
    virCheckpointStoreDomain *domain =
        virCheckpointStoreDomainOpen(store, TEST_UUID, NULL);

    g_assert_nonnull(domain);
    return domain;
}

/* Runs all operations in a child that dies at @step.  Returns: TRUE if it did. */
static gboolean
testRunChild(gint step, gboolean powerCut)
{
    pid_t pid = fork();
    int status = 0;
    guint i;

    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        g_autoptr(virCheckpointStore) store = virCheckpointStoreOpen(testRoot, NULL);
        g_autoptr(virCheckpointStoreDomain) domain = testStart(store);

        testNames = g_ptr_array_new_with_free_func(testNameFree);
        testSynced = g_hash_table_new(NULL, NULL);
        testPutFile(testRoot, "used.0.qcow2", "u");
        testPutFile(testRoot, "unused.0.qcow2", "u");
        testPowerCut = powerCut;
        testStepsLeft = step;
        for (i = 0; i < TEST_OPERATIONS; i++) {
            if (!testOperation(domain, i))
                _exit(1);
            *testAnswered = i + 1;
        }
        _exit(0);
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    if (WIFSIGNALED(status)) {
        g_assert_cmpint(WTERMSIG(status), ==, SIGKILL);
        return TRUE;
    }
    g_assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 99);
    return WEXITSTATUS(status) == 99;
}

/* Sidecars are made by others, who sync them: a cut may have emptied ours, no matter.
 */
static void
testCheck(GPtrArray *expected, gint step)
{
    g_autoptr(virCheckpointStore) store = virCheckpointStoreOpen(testRoot, NULL);
    g_autoptr(virCheckpointStoreDomain) domain = NULL;
    g_autofree gchar *state = NULL;
    const guint answered = *testAnswered;
    gboolean found = FALSE;
    guint i;

    g_assert_nonnull(store);
    domain = testStart(store);
    state = testState(domain);
    for (i = answered; i <= answered + 1 && i < expected->len; i++)
        found = found || g_str_equal(state, g_ptr_array_index(expected, i));
    /* The last one, drop, removes several files: any number of them may be gone. */
    if (!found && answered != TEST_OPERATIONS - 1)
        g_error("step %d after %u operations: '%s'", step, answered, state);

    /* Whatever is left, the next operations work. */
    g_assert_true(testSaveState(domain, 'd', VIR_CHECKPOINT_RECORD_READY));
    g_assert_true(virCheckpointStoreCollect(domain, NULL));
    g_assert_false(testHasFile(testRoot, "unused.0.qcow2"));
    g_assert_true(virCheckpointStoreDrop(domain, NULL));
}

/* Returns: (transfer full): gchar*: the state after 0, 1, 2 ... operations. */
static GPtrArray *
testExpected(void)
{
    GPtrArray *expected = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(virCheckpointStore) store = virCheckpointStoreOpen(testRoot, NULL);
    g_autoptr(virCheckpointStoreDomain) domain = testStart(store);
    guint i;

    testPutFile(testRoot, "used.0.qcow2", "u");
    testPutFile(testRoot, "unused.0.qcow2", "u");
    g_ptr_array_add(expected, testState(domain));
    for (i = 0; i < TEST_OPERATIONS; i++) {
        g_assert_true(testOperation(domain, i));
        g_ptr_array_add(expected, testState(domain));
    }
    g_assert_cmpstr(g_ptr_array_index(expected, 6), ==, "a1 b1 c0 unused used y z");
    g_assert_cmpstr(g_ptr_array_index(expected, TEST_OPERATIONS), ==, "");
    return expected;
}

static void
testSweep(gboolean powerCut, const gchar *faults)
{
    g_autoptr(GPtrArray) expected = testExpected();
    gboolean died = TRUE;
    gint step;

    for (step = 1; died; step++) {
        *testAnswered = 0;
        if (faults) {
            g_autofree gchar *spec = g_strdup_printf("*@%d=%s", step, faults);

            g_setenv("VIRT_CHECKPOINT_FAULTS", spec, TRUE);
        }
        died = testRunChild(faults ? -1 : step, powerCut);
        g_unsetenv("VIRT_CHECKPOINT_FAULTS");
        testCheck(expected, step);
    }
    /* Every operation has at least two steps. */
    g_assert_cmpint(step, >, 2 * TEST_OPERATIONS);
}

static void
testCrashExit(void)
{
    testSweep(FALSE, NULL);
}

static void
testCrashPowerCut(void)
{
    testSweep(TRUE, NULL);
}

/* Runs all operations until one fails, with a disk that refuses the @call-th call.
 * Returns: TRUE if there was one. */
static gboolean
testRunRefused(gint call, gboolean once)
{
    g_autoptr(virCheckpointStore) store = virCheckpointStoreOpen(testRoot, NULL);
    g_autoptr(virCheckpointStoreDomain) domain = testStart(store);
    gboolean failed = FALSE;
    guint i;

    testPutFile(testRoot, "used.0.qcow2", "u");
    testPutFile(testRoot, "unused.0.qcow2", "u");
    testFailsOnce = once;
    testCallHasFailed = FALSE;
    testCallsLeft = call;
    for (i = 0; i < TEST_OPERATIONS && !failed; i++)
        failed = !testOperation(domain, i);
    /* What is closed meets the same disk. */
    g_clear_pointer(&domain, virCheckpointStoreDomainClose);
    testCallsLeft = -1;
    *testAnswered = failed ? i - 1 : i;
    g_assert_true(testCallHasFailed || !failed);
    return testCallHasFailed;
}

/* The disk refuses any one call, or all from then on: what was answered is there, what
 * failed is the old state or the new one, and once the disk is well all goes on. */
static void
testIoErrors(void)
{
    g_autoptr(GPtrArray) expected = testExpected();
    gboolean once;
    gint call;

    /* It warns, as it must. */
    g_log_set_always_fatal(G_LOG_LEVEL_CRITICAL | G_LOG_FATAL_MASK);
    for (once = FALSE; once <= TRUE; once++) {
        for (call = 1; testRunRefused(call, once); call++)
            testCheck(expected, call);
        testCheck(expected, call);
        g_assert_cmpint(call, >, 3 * TEST_OPERATIONS);
    }
}

#ifdef VIR_CHECKPOINT_FAULTS
static void
testCrashFaultPoints(void)
{
    testSweep(FALSE, "exit");
}

/* An operation that fails says so, and leaves the old state or the new one. */
static void
testFailEveryPoint(void)
{
    g_autoptr(GPtrArray) expected = testExpected();
    gboolean failed = TRUE;
    guint step;
    guint i;

    for (step = 1; failed; step++) {
        g_autoptr(virCheckpointStore) store = virCheckpointStoreOpen(testRoot, NULL);
        g_autoptr(virCheckpointStoreDomain) domain = testStart(store);
        g_autofree gchar *spec = g_strdup_printf("*@%u=fail", step);

        failed = FALSE;
        testPutFile(testRoot, "used.0.qcow2", "u");
        testPutFile(testRoot, "unused.0.qcow2", "u");
        g_setenv("VIRT_CHECKPOINT_FAULTS", spec, TRUE);
        for (i = 0; i < TEST_OPERATIONS && !failed; i++)
            failed = !testOperation(domain, i);
        g_unsetenv("VIRT_CHECKPOINT_FAULTS");
        *testAnswered = failed ? i - 1 : i;
        g_clear_pointer(&domain, virCheckpointStoreDomainClose);
        testCheck(expected, (gint)step);
    }
    g_assert_cmpuint(step, >, TEST_OPERATIONS);
}
#endif

int
main(int argc, char **argv)
{
    g_autofree gchar *dir = NULL;
    int rc = 0;

    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("storecrashtest-XXXXXX", NULL);
    testRoot = g_build_filename(dir, "store", NULL);
    testAnswered = mmap(NULL, sizeof(*testAnswered), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    g_assert_true(testAnswered != MAP_FAILED);
    g_test_add_func("/store/crash-at-every-call", testCrashExit);
    g_test_add_func("/store/power-cut-at-every-call", testCrashPowerCut);
    g_test_add_func("/store/io-error-at-every-call", testIoErrors);
#ifdef VIR_CHECKPOINT_FAULTS
    g_test_add_func("/store/crash-at-every-fault-point", testCrashFaultPoints);
    g_test_add_func("/store/failure-at-every-fault-point", testFailEveryPoint);
#endif
    rc = g_test_run();
    testRemoveTree(dir);
    g_free(testRoot);
    return rc;
}
