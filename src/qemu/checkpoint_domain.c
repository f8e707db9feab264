/*
 * checkpoint_domain.c: a domain, its disks and its monitor for one operation
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: libvirt knows which disks a domain has and under which alias QEMU's devices
 * run; QEMU knows the nodes below them.  A view holds what libvirt says at the start of
 * an operation.  The operation has the domain's slot, but clients that go to libvirt
 * directly do not ask for it: a view is a copy that can be refreshed, never the truth.
 */

#include "config.h"

#include <libvirt/virterror.h>
#include <string.h>

#include "checkpoint_domain.h"
#include "checkpoint_error.h"
#include "checkpoint_offline_guard.h"
#include "checkpoint_xml.h"

gboolean
virCheckpointDomainSetError(GError **error)
{
    virErrorPtr last = virGetLastError();

    if (last && last->message)
        g_set_error_literal(error, VIR_CHECKPOINT_LIBVIRT_ERROR, last->code,
                            last->message);
    else
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR,
                            "libvirt failed without saying why");
    return FALSE;
}

void
virCheckpointDiskFree(virCheckpointDisk *disk)
{
    if (!disk)
        return;
    g_free(disk->target);
    g_free(disk->alias);
    g_free(disk->source);
    g_free(disk->type);
    g_free(disk->format);
    g_free(disk->copyTo);
    g_free(disk);
}

static virCheckpointDisk *
virCheckpointDomainParseDisk(xmlNode *node)
{
    virCheckpointDisk *disk = g_new0(virCheckpointDisk, 1);
    g_autofree gchar *device = virCheckpointXmlString(node, "string(./@device)");

    disk->target = virCheckpointXmlString(node, "string(./target/@dev)");
    disk->alias = virCheckpointXmlString(node, "string(./alias/@name)");
    disk->type = virCheckpointXmlString(node, "string(./@type)");
    disk->format = virCheckpointXmlString(node, "string(./driver/@type)");
    disk->source = virCheckpointXmlString(node, "string(./source/@file)");
    if (!disk->source)
        disk->source = virCheckpointXmlString(node, "string(./source/@dev)");
    disk->readOnly = virCheckpointXmlNode(node, "./readonly") != NULL;
    disk->empty = virCheckpointXmlNode(node, "./source") == NULL;
    disk->mirrored = virCheckpointXmlNode(node, "./mirror") != NULL;
    disk->copied = virCheckpointXmlNode(node, "./mirror[@job='copy']") != NULL;
    disk->copyTo =
        virCheckpointXmlString(node, "string(./mirror[@job='copy']/source/@file)");
    if (!disk->copyTo)
        disk->copyTo =
            virCheckpointXmlString(node, "string(./mirror[@job='copy']/source/@dev)");
    disk->cdromOrFloppy =
        g_strcmp0(device, "cdrom") == 0 || g_strcmp0(device, "floppy") == 0;
    return disk;
}

GPtrArray *
virCheckpointDomainParseDisks(const gchar *xml, GError **error)
{
    g_autoptr(GPtrArray) disks =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointDiskFree);
    g_autoptr(xmlDoc) doc = NULL;
    g_autoptr(GPtrArray) nodes = NULL;
    guint i;

    if (!(doc = virCheckpointXmlParse(xml, "(domain_definition)", "domain", error)))
        return NULL;
    nodes = virCheckpointXmlNodes(xmlDocGetRootElement(doc), "./devices/disk");
    for (i = 0; nodes && i < nodes->len; i++) {
        virCheckpointDisk *disk =
            virCheckpointDomainParseDisk(g_ptr_array_index(nodes, i));

        if (disk->target)
            g_ptr_array_add(disks, disk);
        else
            virCheckpointDiskFree(disk);
    }
    return g_steal_pointer(&disks);
}

const virCheckpointDisk *
virCheckpointDomainFindDisk(GPtrArray *disks, const gchar *name)
{
    guint i;

    for (i = 0; i < disks->len; i++) {
        const virCheckpointDisk *disk = g_ptr_array_index(disks, i);

        if (g_strcmp0(disk->target, name) == 0)
            return disk;
    }
    for (i = 0; i < disks->len; i++) {
        const virCheckpointDisk *disk = g_ptr_array_index(disks, i);

        if (g_strcmp0(disk->source, name) == 0)
            return disk;
    }
    return NULL;
}

/* Where a device of domain XML ends up that comes before sound: libvirt has an order.
 */
static gboolean
virCheckpointDomainIsAfterAudio(const gchar *line)
{
    static const gchar *const later[] = {
        "sound",    "video",      "hostdev", "redirdev", "redirfilter", "hub",
        "watchdog", "memballoon", "rng",     "nvram",    "panic",       "shmem",
        "memory",   "iommu",      "vsock",   "crypto"};
    gsize i;

    if (g_str_has_prefix(line, "  </devices>"))
        return TRUE;
    for (i = 0; g_str_has_prefix(line, "    <") && i < G_N_ELEMENTS(later); i++) {
        gsize length = strlen(later[i]);

        if (g_str_has_prefix(line + 5, later[i]) && !g_ascii_isalpha(line[5 + length]))
            return TRUE;
    }
    return FALSE;
}

gchar *
virCheckpointDomainComplete(const gchar *xml, const gchar *live)
{
    static const gchar mouse[] = "    <input type='mouse' bus='ps2'/>";
    g_autoptr(xmlDoc) doc =
        live ? virCheckpointXmlParse(live, "(domain)", "domain", NULL) : NULL;
    xmlNode *root = doc ? xmlDocGetRootElement(doc) : NULL;
    g_auto(GStrv) lines = g_strsplit(xml, "\n", -1);
    g_autofree gchar *audio =
        virCheckpointXmlString(root, "./devices/audio[@type='none']/@id");
    gboolean keyboard =
        NULL !=
        virCheckpointXmlNode(root, "./devices/input[@type='keyboard' and @bus='ps2']");
    GString *out = g_string_new(NULL);
    guint i;

    if (strstr(xml, "<input type='keyboard' bus='ps2'"))
        keyboard = FALSE;
    if (strstr(xml, "<audio "))
        g_clear_pointer(&audio, g_free);
    for (i = 0; lines[i]; i++) {
        if (audio && virCheckpointDomainIsAfterAudio(lines[i])) {
            g_string_append(out, "    ");
            virCheckpointXmlAppend(out, "<audio id='%s' type='none'/>\n", audio);
            g_clear_pointer(&audio, g_free);
        }
        g_string_append(out, lines[i]);
        if (lines[i + 1])
            g_string_append_c(out, '\n');
        if (keyboard && g_str_equal(lines[i], mouse)) {
            g_string_append(out, "    <input type='keyboard' bus='ps2'/>\n");
            keyboard = FALSE;
        }
    }
    return g_string_free(out, FALSE);
}

/* A guest whose memory was saved goes on with the disks that it had then. */
static gchar *
virCheckpointDomainXml(virDomainPtr domain, gboolean active)
{
    if (!active && virDomainHasManagedSaveImage(domain, 0) == 1)
        return virDomainManagedSaveGetXMLDesc(domain, 0);
    return virDomainGetXMLDesc(domain, 0);
}

gboolean
virCheckpointDomainViewRefresh(virCheckpointDomainView *view, GError **error)
{
    g_autoptr(GPtrArray) disks = NULL;
    g_autofree gchar *xml = NULL;
    gint active = virDomainIsActive(view->domain);

    if (active < 0 || !(xml = virCheckpointDomainXml(view->domain, active == 1)))
        return virCheckpointDomainSetError(error);
    if (!(disks = virCheckpointDomainParseDisks(xml, error)))
        return FALSE;
    if (!active || !view->running) {
        virCheckpointOfflineUnguardRest(view);
        g_clear_pointer(&view->monitor, virCheckpointMonitorFree);
        virCheckpointOfflineUnguard(view);
    }
    view->writable = FALSE;
    if (active && !view->monitor &&
        !(view->monitor = virCheckpointMonitorNewDomain(view->domain, error)))
        return FALSE;
    view->running = active == 1;
    g_free(view->xml);
    view->xml = g_steal_pointer(&xml);
    g_clear_pointer(&view->disks, g_ptr_array_unref);
    view->disks = g_steal_pointer(&disks);
    return TRUE;
}

gboolean
virCheckpointDomainViewIsStill(virCheckpointDomainView *view, GError **error)
{
    int state = VIR_DOMAIN_NOSTATE;
    int reason = 0;

    if (!view->running || virDomainGetState(view->domain, &state, &reason, 0) < 0 ||
        state != VIR_DOMAIN_PAUSED || reason != VIR_DOMAIN_PAUSED_MIGRATION)
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                "domain '%s' is being migrated", view->name);
    return FALSE;
}

virCheckpointDomainView *
virCheckpointDomainViewNew(virConnectPtr conn, const gchar *uuid, GError **error)
{
    g_autoptr(virCheckpointDomainView) view = g_new0(virCheckpointDomainView, 1);

    if (!(view->domain = virDomainLookupByUUIDString(conn, uuid))) {
        virCheckpointDomainSetError(error);
        return NULL;
    }
    view->conn = conn;
    view->uuid = g_strdup(uuid);
    view->name = g_strdup(virDomainGetName(view->domain));
    if (!virCheckpointDomainViewRefresh(view, error))
        return NULL;
    return g_steal_pointer(&view);
}

void
virCheckpointDomainViewFree(virCheckpointDomainView *view)
{
    if (!view)
        return;
    virCheckpointOfflineUnguardRest(view);
    g_clear_pointer(&view->monitor, virCheckpointMonitorFree);
    virCheckpointOfflineUnguard(view);
    if (view->domain)
        virDomainFree(view->domain);
    if (view->disks)
        g_ptr_array_unref(view->disks);
    g_free(view->uuid);
    g_free(view->name);
    g_free(view->xml);
    g_free(view);
}
