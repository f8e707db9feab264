/*
 * recordtest.c: records come back whole or not at all
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_error.h"
#include "checkpoint_record.h"

#include <string.h>

#define TEST_ID "0123456789abcdef0123456789abcdef"
#define TEST_BITMAP VIR_CHECKPOINT_BITMAP_PREFIX TEST_ID

static virCheckpointRecord *
testRecord(const gchar *domain)
{
    virCheckpointRecord *record = virCheckpointRecordNew();
    virCheckpointSegment *segment = virCheckpointSegmentNew("vda");
    virCheckpointDiskDef *disk =
        virCheckpointDiskDefNew("vda", VIR_CHECKPOINT_DISK_BITMAP);

    record->id = g_strdup(TEST_ID);
    record->state = VIR_CHECKPOINT_RECORD_DELETING;
    record->def = virCheckpointDefNew();
    record->def->name = g_strdup("c1");
    record->def->parent = g_strdup("c0");
    record->def->description = g_strdup("a <b>\n &c ");
    record->def->creationTime = 1600000000;
    virCheckpointDefSetDomain(record->def, domain);
    record->def->disks =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointDiskDefFree);
    disk->bitmap = g_strdup("c1");
    g_ptr_array_add(record->def->disks, disk);

    segment->born = g_strdup("/img/it's <odd>\n\t\"&\r \xc3\xa9.qcow2");
    segment->sizeBytes = G_MAXUINT64;
    segment->granularity = 65536;
    segment->lost = TRUE;
    g_ptr_array_add(segment->sidecars, g_strdup("x.0.qcow2"));
    g_ptr_array_add(segment->sidecars, g_strdup("x.1.qcow2"));
    g_ptr_array_add(segment->bitmaps, g_strdup(TEST_BITMAP));
    g_ptr_array_add(segment->heirs, g_strdup("/img/<below>'s.qcow2"));
    g_ptr_array_add(segment->heirs, g_strdup("network"));
    g_ptr_array_add(record->segments, segment);
    g_ptr_array_add(record->segments, virCheckpointSegmentNew("vdb"));
    return record;
}

static void
testRecordRoundTrip(void)
{
    const gchar *const domains[] = {
        NULL,
        "",
        "<domain type='kvm'>\n  <x y='&lt;'/>\n</domain>\n",
        "]]><evil/>]]&gt;<![CDATA[",
        "carriage\r\nreturn",
        "tab\tand\n\n lines  ",
    };
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(domains); i++) {
        g_autoptr(virCheckpointRecord) record = testRecord(domains[i]);
        g_autoptr(virCheckpointRecord) copy = virCheckpointRecordCopy(record);
        g_autoptr(virCheckpointRecord) back = NULL;
        g_autofree gchar *text = virCheckpointRecordFormat(copy);
        g_autofree gchar *again = NULL;
        g_autoptr(GError) error = NULL;
        virCheckpointSegment *segment = NULL;

        back = virCheckpointRecordParse(text, &error);
        g_assert_no_error(error);
        again = virCheckpointRecordFormat(back);
        g_assert_cmpstr(again, ==, text);
        g_assert_cmpstr(back->id, ==, record->id);
        g_assert_cmpint(back->state, ==, record->state);
        g_assert_cmpstr(back->def->name, ==, "c1");
        g_assert_cmpstr(back->def->parent, ==, "c0");
        g_assert_cmpstr(back->def->description, ==, record->def->description);
        g_assert_cmpint(back->def->creationTime, ==, 1600000000);
        g_assert_cmpstr(back->def->domain, ==, domains[i]);
        g_assert_cmpuint(back->segments->len, ==, 2);
        segment = virCheckpointRecordSegment(back, "vda");
        g_assert_cmpstr(segment->born, ==,
                        virCheckpointRecordSegment(record, "vda")->born);
        g_assert_cmpuint(segment->sizeBytes, ==, G_MAXUINT64);
        g_assert_cmpuint(segment->granularity, ==, 65536);
        g_assert_true(segment->lost);
        g_assert_cmpuint(segment->sidecars->len, ==, 2);
        g_assert_cmpstr(g_ptr_array_index(segment->sidecars, 1), ==, "x.1.qcow2");
        g_assert_cmpstr(g_ptr_array_index(segment->bitmaps, 0), ==, TEST_BITMAP);
        g_assert_false(virCheckpointRecordSegment(back, "vdb")->lost);
        g_assert_null(virCheckpointRecordSegment(back, "vdc"));
    }
}

/* Every cut of a good record is refused: no record is read in part. */
static void
testRecordTruncated(void)
{
    g_autoptr(virCheckpointRecord) record = testRecord("<domain/>");
    g_autofree gchar *text = virCheckpointRecordFormat(record);
    gsize length = strlen(text) - strlen("\n");

    while (length > 0) {
        g_autoptr(GError) error = NULL;

        text[--length] = '\0';
        g_assert_null(virCheckpointRecordParse(text, &error));
        g_assert_nonnull(error);
    }
}

/* One change to a good record makes it a bad one. */
static void
testRecordMalformed(void)
{
    static const struct {
        const gchar *from;
        const gchar *to;
    } changes[] = {
        {"version='1'", "version='2'"},
        {"version='1'", ""},
        {"<virtcheckpoint ", "<other "},
        {"<id>0", "<id>"},
        {"<id>0", "<id>G"},
        {"<id>0123456789abcdef0123456789abcdef",
         "<id>../3456789abcdef0123456789abcdef"},
        {"deleting", "sleeping"},
        {"<state>deleting</state>", ""},
        {"<name>c1", "<name>../c1"},
        {"<name>c1</name>", ""},
        {"disk='vda'", "disk=''"},
        {"disk='vda'", "disk='../x'"},
        {"disk='vda'", "disk='vdb'"},
        {"lost='yes'", "lost='no'"},
        {"granularity='65536'", "granularity='-1'"},
        {"size='18446744073709551615'", ""},
        {"size='18446744073709551615'", "size='18446744073709551616'"},
        {"file='x.0.qcow2'", "file='../x.0.qcow2'"},
        {"file='x.0.qcow2'", "file='/x.0.qcow2'"},
        {"file='x.0.qcow2'", "file='.x'"},
        {"file='x.0.qcow2'", "file=''"},
        {"file='x.0.qcow2'", ""},
        {"bitmap name='virtcheckpoint.", "bitmap name='libvirt-tmp."},
        {"bitmap name='virtcheckpoint.0", "bitmap name='virtcheckpoint."},
        {"bitmap name='virtcheckpoint.0", "bitmap name='virtcheckpoint./"},
    };
    g_autoptr(virCheckpointRecord) record = testRecord("<domain/>");
    g_autofree gchar *text = virCheckpointRecordFormat(record);
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(changes); i++) {
        g_autoptr(GString) bad = g_string_new(text);
        g_autoptr(GError) error = NULL;
        gint code = 0;

        if (g_str_has_prefix(changes[i].from, "<virt"))
            g_string_replace(bad, "</virtcheckpoint>", "</other>", 0);
        g_assert_cmpuint(g_string_replace(bad, changes[i].from, changes[i].to, 1), ==,
                         1);
        g_assert_null(virCheckpointRecordParse(bad->str, &error));
        /* A name is refused by the schema of checkpoints, the rest by ours. */
        code = strstr(error->message, "checkpoint name") ? VIR_ERR_XML_INVALID_SCHEMA
                                                         : VIR_ERR_XML_ERROR;
        g_assert_error(error, VIR_CHECKPOINT_ERROR, code);
    }
}

static void
testRecordId(void)
{
    g_autofree gchar *one = virCheckpointRecordNewId();
    g_autofree gchar *two = virCheckpointRecordNewId();

    g_assert_cmpuint(strspn(one, "0123456789abcdef"), ==, 32);
    g_assert_cmpuint(strlen(one), ==, 32);
    g_assert_cmpstr(one, !=, two);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/record/round-trip", testRecordRoundTrip);
    g_test_add_func("/record/every-cut-is-refused", testRecordTruncated);
    g_test_add_func("/record/malformed-is-refused", testRecordMalformed);
    g_test_add_func("/record/ids", testRecordId);
    return g_test_run();
}
