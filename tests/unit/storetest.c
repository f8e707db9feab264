/*
 * storetest.c: the store keeps what it was given, and gives up nothing on suspicion
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_error.h"
#include "checkpoint_storepriv.h"
#include "storelib.h"

#include <glib/gstdio.h>

typedef struct testFixture {
    gchar *root;
    virCheckpointStore *store;
} testFixture;

static void
testSetUp(testFixture *f, gconstpointer opaque)
{
    g_autofree gchar *dir = g_dir_make_tmp("storetest-XXXXXX", NULL);
    g_autoptr(GError) error = NULL;

    f->root = g_build_filename(dir, "a", "store", NULL);
    f->store = virCheckpointStoreOpen(f->root, &error);
    g_assert_no_error(error);
}

static void
testTearDown(testFixture *f, gconstpointer opaque)
{
    g_autofree gchar *parent = g_path_get_dirname(f->root);
    g_autofree gchar *dir = g_path_get_dirname(parent);

    virCheckpointStoreFree(f->store);
    testRemoveTree(dir);
    g_free(f->root);
}

static virCheckpointStoreDomain *
testOpen(testFixture *f)
{
    g_autoptr(GError) error = NULL;
    virCheckpointStoreDomain *domain =
        virCheckpointStoreDomainOpen(f->store, TEST_UUID, &error);

    g_assert_no_error(error);
    return domain;
}

static void
testReopen(testFixture *f)
{
    g_autoptr(GError) error = NULL;

    virCheckpointStoreFree(f->store);
    f->store = virCheckpointStoreOpen(f->root, &error);
    g_assert_no_error(error);
}

static void
testSave(virCheckpointStoreDomain *domain,
         gchar digit,
         const gchar *name,
         const gchar *sidecar)
{
    g_autoptr(virCheckpointRecord) record = testRecord(digit, name, sidecar);
    g_autoptr(GError) error = NULL;

    g_assert_true(virCheckpointStoreSave(domain, record, &error));
    g_assert_no_error(error);
}

static guint
testCount(virCheckpointStoreDomain *domain)
{
    g_autoptr(GPtrArray) records = virCheckpointStoreList(domain, NULL);

    g_assert_nonnull(records);
    return records->len;
}

static void
testStoreReopen(testFixture *f, gconstpointer opaque)
{
    g_autoptr(virCheckpointStoreDomain) domain = testOpen(f);
    g_autoptr(GPtrArray) records = NULL;
    g_autoptr(GPtrArray) jobs = NULL;
    g_autoptr(GPtrArray) domains = NULL;
    g_autoptr(virCheckpointJobRecord) job = testJob('1');
    virCheckpointRecord *record = NULL;
    g_autofree gchar *marker = g_build_filename(f->root, "virtcheckpoint-store", NULL);
    g_autofree gchar *id = testId('1');
    struct stat sb;

    g_assert_cmpstr(virCheckpointStoreRoot(f->store), ==, f->root);
    g_assert_cmpint(stat(f->root, &sb), ==, 0);
    g_assert_cmpuint(sb.st_mode & 0777, ==, 0700);
    g_assert_cmpint(stat(marker, &sb), ==, 0);

    testSave(domain, '1', "c1", NULL);
    testSave(domain, '2', "c2", NULL);
    g_assert_true(virCheckpointStoreSaveJob(domain, job, NULL));
    g_clear_pointer(&domain, virCheckpointStoreDomainClose);
    testReopen(f);

    domains = virCheckpointStoreListDomains(f->store, NULL);
    g_assert_cmpuint(domains->len, ==, 1);
    g_assert_cmpstr(g_ptr_array_index(domains, 0), ==, TEST_UUID);
    domain = testOpen(f);
    g_assert_cmpstr(virCheckpointStoreDomainUuid(domain), ==, TEST_UUID);
    records = virCheckpointStoreList(domain, NULL);
    jobs = virCheckpointStoreListJobs(domain, NULL);
    g_assert_cmpuint(records->len, ==, 2);
    g_assert_cmpuint(jobs->len, ==, 1);

    /* What is returned is the caller's: changing it changes nothing. */
    record = g_ptr_array_index(records, 0);
    record->state = VIR_CHECKPOINT_RECORD_DELETING;
    g_ptr_array_set_size(records, 0);
    g_assert_cmpuint(testCount(domain), ==, 2);

    g_assert_true(virCheckpointStoreRemove(domain, id, NULL));
    g_assert_true(virCheckpointStoreRemove(domain, id, NULL));
    g_assert_true(virCheckpointStoreRemoveJob(domain, id, NULL));
    g_assert_cmpuint(testCount(domain), ==, 1);
}

static void
testStoreEmpty(testFixture *f, gconstpointer opaque)
{
    g_autofree gchar *id = testId('1');
    g_autofree gchar *upper = g_ascii_strup("aaaaaaaa-2222-3333-4444-555555555555", -1);
    const gchar *const bad[] = {"", "x", "../" TEST_UUID, TEST_UUID "/", "..", NULL};
    virCheckpointStoreDomain *domain = testOpen(f);
    const gchar *const bitmaps[] = {"virtcheckpoint.x", NULL};
    gsize i;

    /* Neither looking nor a journal alone keeps a folder. */
    g_assert_cmpuint(testCount(domain), ==, 0);
    g_assert_true(virCheckpointStoreJournalAdd(domain, bitmaps, NULL));
    virCheckpointStoreDomainClose(domain);
    g_assert_false(testHasFile(f->root, ""));

    domain = testOpen(f);
    g_assert_false(virCheckpointStoreJournalHas(domain, "virtcheckpoint.x"));
    testSave(domain, '1', "c1", NULL);
    virCheckpointStoreDomainClose(domain);
    g_assert_true(testHasFile(f->root, "lock"));
    domain = testOpen(f);
    g_assert_true(virCheckpointStoreRemove(domain, id, NULL));
    virCheckpointStoreDomainClose(domain);
    g_assert_false(testHasFile(f->root, ""));

    domain = virCheckpointStoreDomainOpen(f->store, upper, NULL);
    g_assert_cmpstr(virCheckpointStoreDomainUuid(domain), ==,
                    "aaaaaaaa-2222-3333-4444-555555555555");
    virCheckpointStoreDomainClose(domain);
    for (i = 0; bad[i]; i++) {
        g_autoptr(GError) error = NULL;

        g_assert_null(virCheckpointStoreDomainOpen(f->store, bad[i], &error));
        g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG);
        g_assert_null(virCheckpointStorePeek(f->store, bad[i], NULL));
    }
}

static void
testStoreHost(testFixture *f, gconstpointer opaque)
{
    g_autoptr(virCheckpointStore) second = virCheckpointStoreOpen(f->root, NULL);
    g_autoptr(GError) error = NULL;

    g_assert_true(virCheckpointStoreLockHost(f->store, "h/../o st", &error));
    g_assert_false(virCheckpointStoreLockHost(second, "h/../o st", &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_RESOURCE_BUSY);
    g_assert_nonnull(strstr(error->message, f->root));
    g_assert_nonnull(strstr(error->message, "another instance runs"));
    g_clear_error(&error);
    g_assert_true(virCheckpointStoreLockHost(second, "other", &error));
    g_clear_pointer(&second, virCheckpointStoreFree);
    virCheckpointStoreFree(f->store);
    f->store = virCheckpointStoreOpen(f->root, NULL);
    g_assert_true(virCheckpointStoreLockHost(f->store, "h/../o st", &error));
}

/* Without room a record can be replaced, and no new one made. What is said is why the
 * write failed: it need not be for want of room. */
static void
testStoreReserve(testFixture *f, gconstpointer opaque)
{
    g_autofree gchar *path = g_build_filename(f->root, "reserve", NULL);
    g_autoptr(GError) full =
        g_error_new_literal(VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED, "why");
    GStatBuf sb;

    g_assert_cmpint(g_stat(path, &sb), ==, 0);
    g_assert_cmpint(sb.st_blocks, >, 0);
    g_test_expect_message("virtcheckpoint", G_LOG_LEVEL_WARNING, "*used now: why");
    g_assert_true(virCheckpointReserveGive(f->root, full));
    g_test_assert_expected_messages();
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    g_assert_false(virCheckpointReserveGive(f->root, full));
    g_assert_true(virCheckpointReserveMake(f->root));
    g_assert_true(virCheckpointReserveMake(f->root));
    g_assert_true(g_file_test(path, G_FILE_TEST_EXISTS));
}

/* Whoever ended between making the file and giving it blocks left no reserve. */
static void
testStoreReserveUnfinished(testFixture *f, gconstpointer opaque)
{
    g_autofree gchar *path = g_build_filename(f->root, "reserve", NULL);
    GStatBuf whole;
    GStatBuf sb;

    g_assert_cmpint(g_stat(path, &whole), ==, 0);
    g_assert_true(g_file_set_contents(path, "", 0, NULL));
    g_assert_cmpint(g_stat(path, &sb), ==, 0);
    g_assert_cmpint(sb.st_blocks, <, whole.st_blocks);
    virCheckpointStoreFree(f->store);
    f->store = virCheckpointStoreOpen(f->root, NULL);
    g_assert_cmpint(g_stat(path, &sb), ==, 0);
    g_assert_cmpint(sb.st_blocks, >=, whole.st_blocks);
    g_assert_cmpint(sb.st_size, ==, whole.st_size);
}

static void
testStoreLater(testFixture *f, gconstpointer opaque)
{
    g_autofree gchar *marker = g_build_filename(f->root, "virtcheckpoint-store", NULL);
    g_autoptr(virCheckpointStore) later = virCheckpointStoreNew(f->root);
    g_autoptr(GPtrArray) uuids = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_true(g_file_set_contents(marker, "another\n", -1, NULL));
    g_assert_null(virCheckpointStoreListDomains(later, &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED);
    g_clear_error(&error);
    g_assert_false(virCheckpointStoreLockHost(later, "host", &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED);
    g_clear_error(&error);
    g_assert_true(g_file_set_contents(marker, "virtcheckpoint-store 1\n", -1, NULL));
    uuids = virCheckpointStoreListDomains(later, &error);
    g_assert_no_error(error);
    g_assert_nonnull(uuids);
}

static void
testStoreVersion(testFixture *f, gconstpointer opaque)
{
    g_autofree gchar *marker = g_build_filename(f->root, "virtcheckpoint-store", NULL);
    g_autoptr(GError) error = NULL;

    g_assert_true(g_file_set_contents(marker, "virtcheckpoint-store 2\n", -1, NULL));
    g_assert_null(virCheckpointStoreOpen(f->root, &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED);
    g_assert_nonnull(strstr(error->message, f->root));
    g_clear_error(&error);
    g_assert_null(virCheckpointStoreOpen(marker, &error));
    g_assert_nonnull(strstr(error->message, marker));
}

/* Longer than a tick: what others do to a folder whose lock we hold is told by its
 * time alone. */
static void
testAge(void)
{
    g_usleep(60 * 1000);
}

/* A damaged file costs its own checkpoint, is named, and comes back when repaired. */
static void
testStoreBadFiles(testFixture *f, gconstpointer opaque)
{
    g_autoptr(virCheckpointStoreDomain) domain = testOpen(f);
    g_autoptr(GPtrArray) bad = NULL;
    g_autofree gchar *name = g_strconcat("22222222222222222222222222222222",
                                         VIR_CHECKPOINT_STORE_RECORD_SUFFIX, NULL);
    g_autofree gchar *path = testFile(f->root, name);
    g_autofree gchar *good = NULL;
    g_autofree gchar *other = NULL;
    const gchar *damages[4] = {"<virtcheckpoint version='1'>", "", "\xff", NULL};
    gsize i;

    testSave(domain, '1', "c1", NULL);
    testSave(domain, '2', "c2", NULL);
    bad = virCheckpointStoreBadFiles(domain);
    g_assert_cmpuint(bad->len, ==, 0);
    g_assert_true(g_file_get_contents(path, &good, NULL, NULL));
    /* A file under another's name would be two checkpoints with one id. */
    other = g_strdup(good);
    memset(strstr(other, "<id>") + 4, '1', 32);
    damages[3] = other;

    for (i = 0; i < G_N_ELEMENTS(damages); i++) {
        testAge();
        testPutFile(f->root, name, damages[i]);
        g_test_expect_message("virtcheckpoint", G_LOG_LEVEL_WARNING,
                              "ignoring file *2222.checkpoint.xml*");
        g_assert_cmpuint(testCount(domain), ==, 1);
        g_test_assert_expected_messages();
        /* Reported once. */
        g_assert_cmpuint(testCount(domain), ==, 1);
        g_ptr_array_unref(bad);
        bad = virCheckpointStoreBadFiles(domain);
        g_assert_cmpuint(bad->len, ==, 1);
        g_assert_cmpstr(g_ptr_array_index(bad, 0), ==, name);

        testAge();
        testPutFile(f->root, name, good);
        g_assert_cmpuint(testCount(domain), ==, 2);
        g_ptr_array_unref(bad);
        bad = virCheckpointStoreBadFiles(domain);
        g_assert_cmpuint(bad->len, ==, 0);
    }

    /* A directory in place of the file. */
    testAge();
    g_assert_cmpint(g_unlink(path), ==, 0);
    g_assert_cmpint(g_mkdir(path, 0700), ==, 0);
    g_test_expect_message("virtcheckpoint", G_LOG_LEVEL_WARNING, "ignoring file *");
    g_assert_cmpuint(testCount(domain), ==, 1);
    g_test_assert_expected_messages();
}

static void
testStoreUnreadable(testFixture *f, gconstpointer opaque)
{
    g_autoptr(virCheckpointStoreDomain) domain = testOpen(f);
    g_autofree gchar *name = g_strconcat("11111111111111111111111111111111",
                                         VIR_CHECKPOINT_STORE_RECORD_SUFFIX, NULL);
    g_autofree gchar *path = testFile(f->root, name);

    if (geteuid() == 0) {
        g_test_skip("root can read everything");
        return;
    }
    testSave(domain, '1', "c1", NULL);
    virCheckpointStoreDomainClose(domain);
    g_assert_cmpint(g_chmod(path, 0), ==, 0);
    domain = testOpen(f);
    g_test_expect_message("virtcheckpoint", G_LOG_LEVEL_WARNING, "*Permission denied*");
    g_assert_cmpuint(testCount(domain), ==, 0);
    g_test_assert_expected_messages();
    g_assert_cmpint(g_chmod(path, 0600), ==, 0);
    g_assert_cmpuint(testCount(domain), ==, 1);
}

/* What cannot be read back is not written: here a domain larger than XML may be. */
static void
testStoreTooLarge(testFixture *f, gconstpointer opaque)
{
    g_autoptr(virCheckpointStoreDomain) domain = testOpen(f);
    g_autoptr(virCheckpointRecord) record = testRecord('1', "c1", NULL);
    g_autofree gchar *huge = g_strnfill(5 * 1024 * 1024, 'x');
    g_autoptr(GError) error = NULL;

    virCheckpointDefSetDomain(record->def, huge);
    g_assert_false(virCheckpointStoreSave(domain, record, &error));
    g_assert_nonnull(strstr(error->message, "record checkpoint 'c1': "));
    g_clear_error(&error);
    g_free(record->id);
    record->id = g_strdup("../x");
    g_assert_false(virCheckpointStoreSave(domain, record, &error));
    g_assert_false(virCheckpointStoreRemove(domain, "../x", NULL));
    g_assert_cmpuint(testCount(domain), ==, 0);
}

static gpointer
testExcluded(gpointer opaque)
{
    testFixture *f = opaque;
    gint i;

    for (i = 0; i < 50; i++) {
        g_autoptr(virCheckpointStoreDomain) domain = testOpen(f);

        /* Between these lines nobody else sees or changes the folder. */
        g_assert_cmpuint(testCount(domain), ==, 0);
        if (i % 2) {
            g_autofree gchar *id = testId('1');

            testSave(domain, '1', "c1", NULL);
            g_assert_cmpuint(testCount(domain), ==, 1);
            g_assert_true(virCheckpointStoreRemove(domain, id, NULL));
        }
    }
    return NULL;
}

static gpointer
testReader(gpointer opaque)
{
    testFixture *f = opaque;
    gint i;

    for (i = 0; i < 500; i++) {
        g_autoptr(GPtrArray) records =
            virCheckpointStorePeek(f->store, TEST_UUID, NULL);

        g_assert_nonnull(records);
        g_assert_cmpuint(records->len, <=, 1);
    }
    return NULL;
}

static void
testStoreExclusion(testFixture *f, gconstpointer opaque)
{
    GThread *threads[4];
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(threads); i++)
        threads[i] = g_thread_new("store", i == 0 ? testReader : testExcluded, f);
    for (i = 0; i < G_N_ELEMENTS(threads); i++)
        g_thread_join(threads[i]);
    g_assert_false(testHasFile(f->root, ""));
}

static void
testStoreJournal(testFixture *f, gconstpointer opaque)
{
    g_autoptr(virCheckpointStoreDomain) domain = testOpen(f);
    const gchar *const first[] = {"virtcheckpoint.a", "virtcheckpoint.b", NULL};
    const gchar *const second[] = {"virtcheckpoint.c", NULL};

    g_assert_false(virCheckpointStoreJournalHas(domain, "virtcheckpoint.a"));
    g_assert_true(virCheckpointStoreJournalAdd(domain, first, NULL));
    g_assert_true(virCheckpointStoreJournalHas(domain, "virtcheckpoint.a"));
    g_assert_true(virCheckpointStoreJournalHas(domain, "virtcheckpoint.b"));
    g_assert_false(virCheckpointStoreJournalHas(domain, "virtcheckpoint."));
    g_assert_false(virCheckpointStoreJournalHas(domain, "b"));

    /* A crash cut the last line: the next name does not run into it. */
    testPutFile(f->root, "journal", "virtcheckpoint.a\nvirtcheckp");
    g_assert_true(virCheckpointStoreJournalAdd(domain, second, NULL));
    g_assert_true(virCheckpointStoreJournalHas(domain, "virtcheckpoint.a"));
    g_assert_true(virCheckpointStoreJournalHas(domain, "virtcheckpoint.c"));
    g_assert_false(virCheckpointStoreJournalHas(domain, "virtcheckpoint.b"));
}

static void
testStoreCollect(testFixture *f, gconstpointer opaque)
{
    g_autoptr(virCheckpointStoreDomain) domain = testOpen(f);
    const gchar *const kept[] = {"1.0.qcow2",   "notes.txt",     "journal",
                                 "x.qcow2.bak", "a.xml.sixten7", NULL};
    const gchar *const leftovers[] = {"1.1.qcow2", "1.0.qcow2.tmp",
                                      "a.checkpoint.xml.A1B2C3", "x.tmp", NULL};
    g_autofree gchar *bad = g_strconcat("22222222222222222222222222222222",
                                        VIR_CHECKPOINT_STORE_RECORD_SUFFIX, NULL);
    g_autofree gchar *badPath = testFile(f->root, bad);
    gsize i;

    testSave(domain, '1', "c1", "1.0.qcow2");
    for (i = 0; kept[i]; i++)
        testPutFile(f->root, kept[i], "x");
    for (i = 0; leftovers[i]; i++)
        testPutFile(f->root, leftovers[i], "x");

    /* A record that cannot be read may name any sidecar. */
    testAge();
    testPutFile(f->root, bad, "<");
    g_test_expect_message("virtcheckpoint", G_LOG_LEVEL_WARNING, "ignoring file *");
    g_assert_true(virCheckpointStoreCollect(domain, NULL));
    g_test_assert_expected_messages();
    g_assert_true(testHasFile(f->root, "1.1.qcow2"));
    g_assert_false(testHasFile(f->root, "1.0.qcow2.tmp"));
    testAge();
    g_assert_cmpint(g_unlink(badPath), ==, 0);

    g_assert_true(virCheckpointStoreCollect(domain, NULL));
    for (i = 0; kept[i]; i++)
        g_assert_true(testHasFile(f->root, kept[i]));
    for (i = 0; leftovers[i]; i++)
        g_assert_false(testHasFile(f->root, leftovers[i]));
    g_assert_cmpuint(testCount(domain), ==, 1);
}

static void
testStoreDrop(testFixture *f, gconstpointer opaque)
{
    virCheckpointStoreDomain *domain = testOpen(f);
    g_autoptr(virCheckpointJobRecord) job = testJob('3');
    g_autofree gchar *inner = testFile(f->root, "directory");

    testSave(domain, '1', "c1", "1.0.qcow2");
    g_assert_true(virCheckpointStoreSaveJob(domain, job, NULL));
    testPutFile(f->root, "1.0.qcow2", "x");
    g_assert_cmpint(g_mkdir(inner, 0700), ==, 0);
    g_assert_true(virCheckpointStoreDrop(domain, NULL));
    g_assert_cmpuint(testCount(domain), ==, 0);
    virCheckpointStoreDomainClose(domain);
    g_assert_false(testHasFile(f->root, ""));
}

static void
testStoreCache(testFixture *f, gconstpointer opaque)
{
    const guint many = 1000;
    g_autoptr(virCheckpointStoreDomain) domain = testOpen(f);
    virCheckpointStoreFolder *folder = virCheckpointStoreDomainFolder(domain);
    g_autofree gchar *filler = g_strnfill(8000, 'x');
    guint before = 0;
    guint i;

    /* Written without the store's syncs, which would take the test's time. */
    for (i = 0; i < many; i++) {
        g_autoptr(virCheckpointRecord) record = testRecord('0', "c", NULL);
        g_autofree gchar *name = NULL;
        g_autofree gchar *text = NULL;

        g_free(record->id);
        record->id = g_strdup_printf("%032x", i);
        virCheckpointDefSetDomain(record->def, filler);
        text = virCheckpointRecordFormat(record);
        name = g_strconcat(record->id, VIR_CHECKPOINT_STORE_RECORD_SUFFIX, NULL);
        testPutFile(f->root, name, text);
    }
    testAge();
    g_assert_cmpuint(testCount(domain), ==, many);
    before = virCheckpointStoreFolderParsed(folder);
    g_assert_cmpuint(before, >=, many);

    /* Nothing changed, or we did it ourselves: nothing is parsed. */
    g_assert_cmpuint(testCount(domain), ==, many);
    g_assert_cmpuint(virCheckpointStoreFolderParsed(folder), ==, before);
    testSave(domain, 'f', "new", NULL);
    g_assert_cmpuint(testCount(domain), ==, many + 1);
    g_assert_cmpuint(virCheckpointStoreFolderParsed(folder), ==, before);
    testAge();
    g_assert_cmpuint(testCount(domain), ==, many + 1);
    before = virCheckpointStoreFolderParsed(folder);
    g_assert_cmpuint(testCount(domain), ==, many + 1);
    g_assert_cmpuint(virCheckpointStoreFolderParsed(folder), ==, before);
}

/* What is written in place leaves the folder as it was: whoever must know looks again.
 */
static void
testStoreInPlace(testFixture *f, gconstpointer opaque)
{
    virCheckpointStoreDomain *domain = testOpen(f);
    g_autofree gchar *id = testId('1');
    g_autofree gchar *name = g_strconcat(id, VIR_CHECKPOINT_STORE_RECORD_SUFFIX, NULL);
    g_autofree gchar *path = testFile(f->root, name);
    g_autoptr(GPtrArray) bad = NULL;
    FILE *file = NULL;

    testSave(domain, '1', "c1", NULL);
    g_assert_cmpuint(testCount(domain), ==, 1);
    virCheckpointStoreDomainClose(domain);
    testAge();
    file = fopen(path, "w");
    g_assert_nonnull(file);
    g_assert_cmpint(fclose(file), ==, 0);
    domain = testOpen(f);
    virCheckpointStoreLookAgain(domain);
    g_test_expect_message("virtcheckpoint", G_LOG_LEVEL_WARNING, "ignoring file *");
    g_assert_cmpuint(testCount(domain), ==, 0);
    g_test_assert_expected_messages();
    bad = virCheckpointStoreBadFiles(domain);
    g_assert_cmpuint(bad->len, ==, 1);
    virCheckpointStoreDomainClose(domain);
}

/* A file that is replaced within one tick of the clock is seen to be another. */
static void
testStoreTick(testFixture *f, gconstpointer opaque)
{
    g_autoptr(virCheckpointStoreDomain) domain = testOpen(f);
    gint i;

    for (i = 0; i < 200; i++) {
        g_autofree gchar *name = g_strdup_printf("c%03d", i);
        g_autoptr(GPtrArray) records = NULL;
        virCheckpointRecord *record = NULL;

        testSave(domain, '1', name, NULL);
        records = virCheckpointStoreList(domain, NULL);
        record = g_ptr_array_index(records, 0);
        g_assert_cmpstr(record->def->name, ==, name);
    }
}

#define TEST(path, func)                                                               \
    g_test_add(path, testFixture, NULL, testSetUp, func, testTearDown)

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    TEST("/store/reopen", testStoreReopen);
    TEST("/store/empty-folders-go", testStoreEmpty);
    TEST("/store/one-daemon-a-host", testStoreHost);
    TEST("/store/unknown-version", testStoreVersion);
    TEST("/store/reserve", testStoreReserve);
    TEST("/store/reserve-unfinished", testStoreReserveUnfinished);
    TEST("/store/well-later", testStoreLater);
    TEST("/store/bad-files", testStoreBadFiles);
    TEST("/store/unreadable-file", testStoreUnreadable);
    TEST("/store/unwritable-records", testStoreTooLarge);
    TEST("/store/operations-exclude-each-other", testStoreExclusion);
    TEST("/store/journal", testStoreJournal);
    TEST("/store/collect", testStoreCollect);
    TEST("/store/drop", testStoreDrop);
    TEST("/store/a-thousand-records-are-parsed-once", testStoreCache);
    TEST("/store/changes-in-place", testStoreInPlace);
    TEST("/store/changes-within-a-tick", testStoreTick);
    return g_test_run();
}
