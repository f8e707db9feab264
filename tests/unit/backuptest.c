/*
 * backuptest.c: what a backup's XML asks for, and the record of a running one
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_backup_record.h"
#include "checkpoint_backup_request.h"
#include "checkpoint_domain.h"
#include "checkpoint_error.h"

#include <string.h>

#define OURS "virtcheckpoint.0123456789abcdef0123456789abcdef"

static const gchar domain[] =
    "<domain><devices>"
    "<disk type='file' device='disk'><driver type='qcow2'/><source file='/a'/>"
    "<target dev='vda'/></disk>"
    "<disk type='file' device='disk'><driver type='qcow2'/><source file='/b'/>"
    "<target dev='vdb'/></disk>"
    "<disk type='file' device='cdrom'><target dev='sda'/><readonly/></disk>"
    "</devices></domain>";

/* "name:disks name:disks" of a document. */
static gchar *
testUses(const gchar *xml)
{
    g_autoptr(GPtrArray) disks = virCheckpointDomainParseDisks(domain, NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(virCheckpointBackupRequest) request =
        virCheckpointBackupRequestParse(xml, disks, &error);
    GString *out = g_string_new(NULL);
    const GPtrArray *uses;
    guint i;
    guint j;

    g_assert_no_error(error);
    uses = virCheckpointBackupRequestUses(request);
    for (i = 0; i < uses->len; i++) {
        const virCheckpointBackupUse *use = g_ptr_array_index(uses, i);

        g_string_append_printf(out, "%s%s:", i ? " " : "", use->name);
        for (j = 0; j < use->targets->len; j++)
            g_string_append_printf(out, "%s%s", j ? "," : "",
                                   (gchar *)g_ptr_array_index(use->targets, j));
    }
    return g_string_free(out, FALSE);
}

static void
testRequestUses(void)
{
    static const struct {
        const gchar *inner;
        const gchar *uses;
    } cases[] = {
        {"", ""},
        {"<incremental>c</incremental>", "c:vda,vdb"},
        {"<incremental>c</incremental><disks><disk name='vda'/></disks>", "c:vda"},
        {"<incremental>c</incremental><disks><disk name='/b'/></disks>", "c:vdb"},
        {"<incremental>c</incremental><disks><disk name='vda' backup='no'/>"
         "<disk name='vdb' incremental='d'/></disks>",
         "d:vdb"},
        {"<incremental>c</incremental><disks><disk name='vda' backupmode='full'/>"
         "<disk name='vdb' backupmode='incremental'/></disks>",
         "c:vdb"},
        {"<disks><disk name='vda'/><disk name='vdb' incremental='d'/></disks>",
         "d:vdb"},
    };
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree gchar *xml =
            g_strdup_printf("<domainbackup>%s</domainbackup>", cases[i].inner);
        g_autofree gchar *uses = testUses(xml);

        g_assert_cmpstr(uses, ==, cases[i].uses);
    }
}

static void
testRequestRename(void)
{
    g_autoptr(GPtrArray) disks = virCheckpointDomainParseDisks(domain, NULL);
    g_autoptr(virCheckpointBackupRequest) request = virCheckpointBackupRequestParse(
        "<domainbackup mode='pull'><incremental>c</incremental><server x='&lt;c'/>"
        "<disks><disk name='vda' incremental='c'/><disk name='c' incremental='d'/>"
        "</disks></domainbackup>",
        disks, NULL);
    g_autofree gchar *out = NULL;

    g_assert_false(virCheckpointBackupRequestIsPush(request));
    virCheckpointBackupRequestRename(request, "c", OURS);
    out = virCheckpointBackupRequestFormat(request);
    g_assert_nonnull(strstr(out, "<incremental>" OURS "</incremental>"));
    g_assert_nonnull(strstr(out, "name='vda' incremental='" OURS "'"));
    g_assert_nonnull(strstr(out, "name='c' incremental='d'"));
    g_assert_nonnull(strstr(out, "<server x='&lt;c'/>"));
}

static void
testRecord(void)
{
    g_autoptr(virCheckpointBackupRecord) record = virCheckpointBackupRecordNew();
    g_autoptr(virCheckpointBackupRecord) back = NULL;
    g_autofree gchar *text = NULL;
    g_autofree gchar *again = NULL;
    g_autofree gchar *shown = NULL;
    g_autofree gchar *cut = NULL;
    g_autoptr(GError) error = NULL;

    record->id = g_strdup("0123456789abcdef0123456789abcdef");
    record->checkpointId = g_strdup("1123456789abcdef0123456789abcdef");
    record->state = VIR_CHECKPOINT_BACKUP_RUNNING;
    record->push = TRUE;
    record->description = g_strdup("<domainbackup>\n  <x/>\n</domainbackup>\n");
    virCheckpointBackupRecordAddName(record, OURS, "c1");
    text = virCheckpointBackupRecordFormat(record);
    back = virCheckpointBackupRecordParse(text, &error);
    g_assert_no_error(error);
    again = virCheckpointBackupRecordFormat(back);
    g_assert_cmpstr(again, ==, text);
    g_assert_cmpstr(back->description, ==, record->description);
    shown = virCheckpointBackupTranslate(back, "a " OURS " b " OURS);
    g_assert_cmpstr(shown, ==, "a c1 b c1");
    cut = g_strndup(text, strlen(text) / 2);
    g_assert_null(virCheckpointBackupRecordParse(cut, NULL));
    g_assert_true(virCheckpointBackupIsOurName(OURS));
    g_assert_false(virCheckpointBackupIsOurName(OURS "0"));
    g_assert_false(virCheckpointBackupIsOurName("virtcheckpoint.x"));
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/backup/uses", testRequestUses);
    g_test_add_func("/backup/rename", testRequestRename);
    g_test_add_func("/backup/record", testRecord);
    return g_test_run();
}
