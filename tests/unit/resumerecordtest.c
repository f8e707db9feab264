/*
 * resumerecordtest.c: what is left of a copy comes back whole, or not at all
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_error.h"
#include "checkpoint_resume_record.h"
#include "storelib.h"

#include <string.h>

#define ID "0123456789abcdef0123456789abcdef"
#define OTHER "1123456789abcdef0123456789abcdef"
#define SINCE "2123456789abcdef0123456789abcdef"

static virCheckpointResumeRecord *
testResume(const gchar *id)
{
    virCheckpointResumeRecord *record = virCheckpointResumeRecordNew();

    record->id = g_strdup(id);
    record->target = g_strdup("vda");
    record->sinceId = g_strdup(SINCE);
    record->destPath = g_strdup("/img/t'<>&\n.qcow2");
    record->stamp = g_strdup("1:2:3:4.5:6.7");
    record->rest = g_strconcat(id, ".rest.qcow2", NULL);
    record->restBytes = G_MAXUINT64;
    g_ptr_array_add(record->covered, g_strdup("a.1.qcow2@1:2"));
    g_ptr_array_add(record->covered, g_strdup("b.1.qcow2@3:4"));
    return record;
}

static void
testResumeRoundTrip(void)
{
    g_autoptr(virCheckpointResumeRecord) record = testResume(ID);
    g_autofree gchar *text = virCheckpointResumeRecordFormat(record);
    g_autofree gchar *again = NULL;
    g_autoptr(virCheckpointResumeRecord) back = NULL;
    g_autoptr(GError) error = NULL;

    back = virCheckpointResumeRecordParse(text, &error);
    g_assert_no_error(error);
    again = virCheckpointResumeRecordFormat(back);
    g_assert_cmpstr(again, ==, text);
    g_assert_cmpstr(back->destPath, ==, record->destPath);
    g_assert_cmpuint(back->restBytes, ==, record->restBytes);
    g_assert_cmpuint(back->covered->len, ==, 2);
    g_assert_cmpstr(g_ptr_array_index(back->covered, 1), ==, "b.1.qcow2@3:4");
}

static void
testResumeMalformed(void)
{
    static const struct {
        const gchar *from;
        const gchar *to;
    } changes[] = {
        {"version='1'", "version='2'"},    {"<id>0", "<id>../"},
        {"<disk>vda</disk>", ""},          {"stamp=", "mark="},
        {"file='" ID, "file='../" ID},     {"since id='2", "since id='x"},
        {">18446744073709551615<", ">x<"},
    };
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(changes); i++) {
        g_autoptr(virCheckpointResumeRecord) record = testResume(ID);
        g_autofree gchar *text = virCheckpointResumeRecordFormat(record);
        g_autoptr(GString) bad = g_string_new(text);
        g_autoptr(GError) error = NULL;

        g_assert_cmpuint(g_string_replace(bad, changes[i].from, changes[i].to, 1), ==,
                         1);
        g_assert_null(virCheckpointResumeRecordParse(bad->str, &error));
        g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_XML_ERROR);
    }
}

/* One rest per disk and target; its sidecar is no leftover as long as the base
 * checkpoint is there. */
static void
testResumeStore(void)
{
    g_autofree gchar *root = g_dir_make_tmp("resumetest-XXXXXX", NULL);
    g_autoptr(virCheckpointStore) store = virCheckpointStoreOpen(root, NULL);
    g_autoptr(virCheckpointStoreDomain) domain =
        virCheckpointStoreDomainOpen(store, TEST_UUID, NULL);
    g_autoptr(virCheckpointRecord) base = testRecord('a', "c1", NULL);
    g_autoptr(virCheckpointResumeRecord) first = testResume(ID);
    g_autoptr(virCheckpointResumeRecord) second = testResume(OTHER);
    g_autoptr(GPtrArray) found = NULL;
    g_autoptr(GError) error = NULL;

    g_free(base->id);
    base->id = g_strdup(SINCE);
    virCheckpointStoreSave(domain, base, &error);
    virCheckpointStoreSaveResume(domain, first, &error);
    testPutFile(root, first->rest, "");
    virCheckpointStoreSaveResume(domain, second, &error);
    testPutFile(root, second->rest, "");
    g_assert_no_error(error);
    found = virCheckpointStoreListResumes(domain);
    g_assert_cmpuint(found->len, ==, 1);
    g_assert_false(testHasFile(root, first->rest));
    g_assert_true(virCheckpointStoreCollect(domain, &error));
    g_assert_true(testHasFile(root, second->rest));
    g_assert_true(virCheckpointStoreRemove(domain, SINCE, &error));
    g_assert_true(virCheckpointStoreCollect(domain, &error));
    g_assert_false(testHasFile(root, second->rest));
    g_assert_false(testHasFile(root, OTHER ".resume.xml"));
    g_clear_pointer(&domain, virCheckpointStoreDomainClose);
    g_clear_pointer(&store, virCheckpointStoreFree);
    testRemoveTree(root);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/resume-record/round-trip", testResumeRoundTrip);
    g_test_add_func("/resume-record/malformed-is-refused", testResumeMalformed);
    g_test_add_func("/resume-record/store", testResumeStore);
    return g_test_run();
}
