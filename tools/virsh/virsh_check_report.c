/*
 * virsh_check_report.c: a report on checkpoints, for a screen
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One screen: of many checkpoints only those are shown at which something begins to be
 * wrong, the newest and the oldest; the others are counted.  What is wrong comes last,
 * where the eye is when the prompt is back, each with the command that mends it.
 */

#include "config.h"

#include <string.h>

#include "virsh_check.h"

/** Lines of one disk's checkpoints, without the one that counts the others. */
#define SHOWN_MAX 12

int
virCheckpointVirshCheckStatus(const virCheckpointJson *report)
{
    const gchar *health = virCheckpointJsonGetString(report, "health");

    if (g_strcmp0(health, "healthy") == 0)
        return VIR_CHECKPOINT_VIRSH_CHECK_HEALTHY;
    return g_strcmp0(health, "wrong") == 0 ? VIR_CHECKPOINT_VIRSH_CHECK_WRONG
                                           : VIR_CHECKPOINT_VIRSH_CHECK_UNKNOWN;
}

static guint64
virCheckpointVirshCheckNumber(const virCheckpointJson *object, const gchar *key)
{
    guint64 number = 0;

    virCheckpointJsonGetUint64(object, key, &number);
    return number;
}

/* "3.000 MiB" as stock virsh shows sizes. */
static gchar *
virCheckpointVirshCheckSize(guint64 bytes)
{
    static const gchar *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    gdouble size = (gdouble)bytes;
    gsize unit = 0;

    while (size >= 1024.0 && unit + 1 < G_N_ELEMENTS(units)) {
        size /= 1024.0;
        unit++;
    }
    return unit == 0 ? g_strdup_printf("%.0f %s", size, units[unit])
                     : g_strdup_printf("%.1f %s", size, units[unit]);
}

/* "2 files, 384.0 KiB" */
static gchar *
virCheckpointVirshCheckFiles(const virCheckpointJson *checkpoint)
{
    const virCheckpointJson *files = virCheckpointJsonGet(checkpoint, "sidecars");
    g_autofree gchar *size = NULL;
    guint64 bytes = 0;
    gsize bad = 0;
    gsize i;

    for (i = 0; i < virCheckpointJsonLength(files); i++) {
        const virCheckpointJson *file = virCheckpointJsonIndex(files, i);

        bytes += virCheckpointVirshCheckNumber(file, "bytes");
        bad += !virCheckpointJsonGetBoolean(file, "good", FALSE);
    }
    if (i == 0)
        return g_strdup("-");
    size = virCheckpointVirshCheckSize(bytes);
    if (bad > 0)
        return g_strdup_printf("%" G_GSIZE_FORMAT " of %" G_GSIZE_FORMAT " bad", bad,
                               i);
    return g_strdup_printf("%" G_GSIZE_FORMAT " file%s, %s", i, i == 1 ? "" : "s",
                           size);
}

/* What QEMU or the image has of a checkpoint: "records, 192.0 KiB". */
static gchar *
virCheckpointVirshCheckLive(const virCheckpointJson *disk,
                            const virCheckpointJson *checkpoint)
{
    const virCheckpointJson *names = virCheckpointJsonGet(checkpoint, "bitmaps");
    const virCheckpointJson *found = virCheckpointJsonGet(disk, "bitmaps");
    gsize i;
    gsize j;

    for (i = virCheckpointJsonLength(names); i > 0; i--) {
        const gchar *name =
            virCheckpointJsonString(virCheckpointJsonIndex(names, i - 1));

        for (j = 0; j < virCheckpointJsonLength(found); j++) {
            const virCheckpointJson *bitmap = virCheckpointJsonIndex(found, j);
            g_autofree gchar *size = NULL;

            if (g_strcmp0(virCheckpointJsonGetString(bitmap, "name"), name) != 0)
                continue;
            if (virCheckpointJsonGetBoolean(bitmap, "inconsistent", FALSE))
                return g_strdup("inconsistent");
            size = virCheckpointVirshCheckSize(
                virCheckpointVirshCheckNumber(bitmap, "changed"));
            return g_strdup_printf(
                "%s, %s",
                virCheckpointJsonGetBoolean(bitmap, "recording", FALSE) ? "records"
                                                                        : "frozen",
                size);
        }
    }
    return g_strdup(virCheckpointJsonLength(names) > 0 ? "missing" : "-");
}

static void
virCheckpointVirshCheckLine(GString *out,
                            const virCheckpointJson *disk,
                            const virCheckpointJson *checkpoint)
{
    const gchar *health = virCheckpointJsonGetString(checkpoint, "health");
    g_autofree gchar *since =
        virCheckpointVirshCheckSize(virCheckpointVirshCheckNumber(checkpoint, "since"));
    g_autofree gchar *live = virCheckpointVirshCheckLive(disk, checkpoint);
    g_autofree gchar *files = virCheckpointVirshCheckFiles(checkpoint);

    g_string_append_printf(out, " %-22s %-13s %-12s %-20s %s\n",
                           virCheckpointJsonGetString(checkpoint, "checkpoint"),
                           g_strcmp0(health, "wrong") == 0 ? "inconsistent" : health,
                           since, live, files);
}

/* TRUE for lines that are shown however many there are. */
static gboolean
virCheckpointVirshCheckMatters(const virCheckpointJson *checkpoints, gsize i)
{
    const virCheckpointJson *one = virCheckpointJsonIndex(checkpoints, i);

    return i == 0 || i + 1 == virCheckpointJsonLength(checkpoints) ||
           g_strcmp0(virCheckpointJsonGetString(one, "own"), "healthy") != 0;
}

static void
virCheckpointVirshCheckDisk(GString *out, const virCheckpointJson *disk)
{
    const virCheckpointJson *checkpoints = virCheckpointJsonGet(disk, "checkpoints");
    g_autofree gchar *size =
        virCheckpointVirshCheckSize(virCheckpointVirshCheckNumber(disk, "size"));
    const gchar *image = virCheckpointJsonGetString(disk, "image");
    gsize count = virCheckpointJsonLength(checkpoints);
    gsize shown = 0;
    gsize i;

    g_string_append_printf(out, "\nDisk %s: %s",
                           virCheckpointJsonGetString(disk, "disk"),
                           virCheckpointJsonGetString(disk, "health"));
    if (image)
        g_string_append_printf(out, ", %s in %s", size, image);
    g_string_append_printf(out, "\n %-22s %-13s %-12s %-20s %s\n", "Checkpoint",
                           "Health", "Changed", "In the image", "In the store");
    for (i = 0; i < count; i++) {
        if (shown >= SHOWN_MAX && i + 1 < count)
            continue;
        if (count > SHOWN_MAX && !virCheckpointVirshCheckMatters(checkpoints, i))
            continue;
        virCheckpointVirshCheckLine(out, disk, virCheckpointJsonIndex(checkpoints, i));
        shown++;
    }
    if (shown < count)
        g_string_append_printf(out, " and %" G_GSIZE_FORMAT " more\n", count - shown);
}

static void
virCheckpointVirshCheckList(GString *out,
                            const gchar *title,
                            const virCheckpointJson *list)
{
    gsize i;

    if (virCheckpointJsonLength(list) == 0)
        return;
    g_string_append_printf(out, "\n%s:", title);
    for (i = 0; i < virCheckpointJsonLength(list); i++) {
        const virCheckpointJson *item = virCheckpointJsonIndex(list, i);

        if (virCheckpointJsonString(item))
            g_string_append_printf(out, "%s %s", i ? "," : "",
                                   virCheckpointJsonString(item));
        else
            g_string_append_printf(out, "%s %s %s", i ? "," : "",
                                   virCheckpointJsonGetString(item, "disk"),
                                   virCheckpointJsonGetString(item, "state"));
    }
    g_string_append_c(out, '\n');
}

/* What is wrong; a command that mends several is said once, behind the last of them. */
static void
virCheckpointVirshCheckProblems(GString *out, const virCheckpointJson *problems)
{
    gsize count = virCheckpointJsonLength(problems);
    gsize i;

    if (count > 0)
        g_string_append(out, "\nProblems:\n");
    for (i = 0; i < count; i++) {
        const virCheckpointJson *problem = virCheckpointJsonIndex(problems, i);
        const gchar *disk = virCheckpointJsonGetString(problem, "disk");
        const gchar *command = virCheckpointJsonGetString(problem, "command");
        const gchar *next = virCheckpointJsonGetString(
            virCheckpointJsonIndex(problems, i + 1), "command");

        g_string_append_printf(out, " %s%s%s\n", disk ? disk : "", disk ? ": " : "",
                               virCheckpointJsonGetString(problem, "text"));
        if (command && g_strcmp0(command, next) != 0)
            g_string_append_printf(out, "   mend with: %s\n", command);
    }
}

gchar *
virCheckpointVirshCheckShow(const virCheckpointJson *report)
{
    const virCheckpointJson *disks = virCheckpointJsonGet(report, "disks");
    const virCheckpointJson *repaired = virCheckpointJsonGet(report, "repaired");
    GString *out = g_string_new(NULL);
    gsize i;

    g_string_append_printf(
        out, "Domain %s (%s), %" G_GUINT64_FORMAT " checkpoints: %s\n",
        virCheckpointJsonGetString(report, "domain"),
        virCheckpointJsonGetBoolean(report, "running", FALSE) ? "running" : "shut off",
        virCheckpointVirshCheckNumber(virCheckpointJsonGet(report, "store"),
                                      "checkpoints"),
        virCheckpointJsonGetString(report, "health"));
    for (i = 0; i < virCheckpointJsonLength(disks); i++)
        virCheckpointVirshCheckDisk(out, virCheckpointJsonIndex(disks, i));
    virCheckpointVirshCheckList(out, "Copies under way",
                                virCheckpointJsonGet(report, "copies"));
    virCheckpointVirshCheckList(out, "Checkpoints of libvirt's own",
                                virCheckpointJsonGet(report, "libvirt"));
    for (i = 0; i < virCheckpointJsonLength(repaired); i++)
        g_string_append_printf(
            out, "%s %s\n", i == 0 ? "\nRepaired:\n" : "",
            virCheckpointJsonString(virCheckpointJsonIndex(repaired, i)));
    virCheckpointVirshCheckProblems(out, virCheckpointJsonGet(report, "problems"));
    return g_string_free(out, FALSE);
}
