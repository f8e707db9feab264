/*
 * checkpoint_native.c: QEMU's own bitmap mirror, where there is one
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: two series of patches give blockdev-mirror a bitmap.  The older one, shipped
 * by a distribution since QEMU 4.2, has sync=bitmap with a bitmap-mode as backup has
 * it; the one posted for inclusion has a member "bitmap" with sync=full, which is the
 * job's working bitmap.  Stock QEMU knows the words, too, and refuses them: only the
 * members tell.
 *
 * Both are used so that a job that ends early leaves in the bitmap what the target
 * lacks.  The bitmap must be enabled for that (a disabled one forgets what the guest
 * writes meanwhile, or is refused).  The posted series divides by the target's cluster
 * size, which is 0 for raw files: QEMU dies of it.  So it gets qcow2 targets whose
 * clusters the bitmap's granularity covers, and NBD, where it cannot ask; all versions
 * of the series agree on these.
 *
 * Packages 8.0.0-1 to 8.0.2-2 of the older series show the members and refuse the
 * command: a refusal is an answer, not an error.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_native.h"
#include "checkpoint_stamp.h"
#include "checkpoint_xml.h"

const gchar *
virCheckpointNativeDialectToString(virCheckpointNativeDialect dialect)
{
    static const gchar *const names[] = {
        [VIR_CHECKPOINT_NATIVE_NONE] = "none",
        [VIR_CHECKPOINT_NATIVE_MODES] = "bitmap with modes",
        [VIR_CHECKPOINT_NATIVE_WORKING] = "working bitmap",
    };

    G_STATIC_ASSERT(G_N_ELEMENTS(names) == VIR_CHECKPOINT_NATIVE_LAST);
    g_assert(dialect < VIR_CHECKPOINT_NATIVE_LAST);
    return names[dialect];
}

/* Type names are numbers that differ between builds: references are followed. */
static const virCheckpointJson *
virCheckpointNativeEntity(const virCheckpointJson *schema, const gchar *name)
{
    gsize i;

    for (i = 0; name && i < virCheckpointJsonLength(schema); i++) {
        const virCheckpointJson *entity = virCheckpointJsonIndex(schema, i);

        if (g_strcmp0(virCheckpointJsonGetString(entity, "name"), name) == 0)
            return entity;
    }
    return NULL;
}

static const virCheckpointJson *
virCheckpointNativeMember(const virCheckpointJson *object, const gchar *name)
{
    const virCheckpointJson *members = virCheckpointJsonGet(object, "members");
    gsize i;

    for (i = 0; i < virCheckpointJsonLength(members); i++) {
        const virCheckpointJson *member = virCheckpointJsonIndex(members, i);

        if (g_strcmp0(virCheckpointJsonGetString(member, "name"), name) == 0)
            return member;
    }
    return NULL;
}

static gboolean
virCheckpointNativeHasValue(const virCheckpointJson *schema,
                            const virCheckpointJson *member,
                            const gchar *value)
{
    const virCheckpointJson *values = virCheckpointJsonGet(
        virCheckpointNativeEntity(schema, virCheckpointJsonGetString(member, "type")),
        "values");
    gsize i;

    for (i = 0; i < virCheckpointJsonLength(values); i++) {
        if (g_strcmp0(virCheckpointJsonString(virCheckpointJsonIndex(values, i)),
                      value) == 0)
            return TRUE;
    }
    return FALSE;
}

virCheckpointNativeDialect
virCheckpointNativeDetect(const virCheckpointJson *schema)
{
    const virCheckpointJson *command =
        virCheckpointNativeEntity(schema, "blockdev-mirror");
    const virCheckpointJson *arguments = virCheckpointNativeEntity(
        schema, virCheckpointJsonGetString(command, "arg-type"));
    const virCheckpointJson *mode = virCheckpointNativeMember(arguments, "bitmap-mode");
    const virCheckpointJson *sync = virCheckpointNativeMember(arguments, "sync");

    if (!virCheckpointNativeMember(arguments, "bitmap"))
        return VIR_CHECKPOINT_NATIVE_NONE;
    if (mode && virCheckpointNativeHasValue(schema, mode, "always") &&
        virCheckpointNativeHasValue(schema, sync, "bitmap"))
        return VIR_CHECKPOINT_NATIVE_MODES;
    /* The member may lose its feature "unstable", and the enum may stay shared. */
    if (!mode && virCheckpointNativeHasValue(schema, sync, "full"))
        return VIR_CHECKPOINT_NATIVE_WORKING;
    g_info("QEMU's blockdev-mirror has a bitmap in a way that is not known");
    return VIR_CHECKPOINT_NATIVE_NONE;
}

gboolean
virCheckpointNativeQuery(virCheckpointMonitor *monitor,
                         virCheckpointNativeDialect *dialect,
                         GError **error)
{
    g_autoptr(virCheckpointJson) schema =
        virCheckpointMonitorRun(monitor, "query-qmp-schema", NULL, error);

    if (!schema)
        return FALSE;
    *dialect = virCheckpointNativeDetect(schema);
    return TRUE;
}

/* The file alone does not tell: it may have been replaced since QEMU was started, or be
 * one that chooses; nor does the version, of which there may be several builds. */
gchar *
virCheckpointNativeIdentity(virCheckpointMonitor *monitor, const gchar *xml)
{
    g_autoptr(xmlDoc) doc = virCheckpointXmlParse(xml, "(domain)", "domain", NULL);
    g_autofree gchar *emulator =
        doc ? virCheckpointXmlString(xmlDocGetRootElement(doc),
                                     "string(./devices/emulator)")
            : NULL;
    g_autofree gchar *stamp = virCheckpointStampLookPath(
        emulator, VIR_CHECKPOINT_STAMP_DEVICE | VIR_CHECKPOINT_STAMP_CHANGE);
    g_autoptr(virCheckpointJson) version = NULL;
    g_autofree gchar *text = NULL;

    if (!stamp ||
        !(version = virCheckpointMonitorRun(monitor, "query-version", NULL, NULL)))
        return NULL;
    text = virCheckpointJsonFormat(version);
    return g_strdup_printf("%s %s %s", emulator, stamp, text);
}

virCheckpointJson *
virCheckpointNativeArguments(const virCheckpointNativePlan *plan)
{
    gboolean modes = plan->dialect == VIR_CHECKPOINT_NATIVE_MODES;
    virCheckpointJson *arguments;

    g_assert(plan->dialect != VIR_CHECKPOINT_NATIVE_NONE);
    arguments = virCheckpointJsonBuild(
        "s:job-id", plan->job, "s:device", plan->source, "s:target", plan->target,
        "s:sync", modes ? "bitmap" : "full", "s:bitmap", plan->bitmap, "s:bitmap-mode",
        modes ? "always" : NULL, "s:filter-node-name", plan->filter, "s:copy-mode",
        plan->synchronous ? "write-blocking" : NULL, "b:auto-dismiss", FALSE, NULL);
    if (plan->speedBytes)
        virCheckpointJsonAddUint64(arguments, "speed", plan->speedBytes);
    if (plan->bufSize)
        virCheckpointJsonAddUint64(arguments, "buf-size", plan->bufSize);
    return arguments;
}

/* What the posted series takes, in all its versions. */
static gchar *
virCheckpointNativeFitsClusters(const virCheckpointNode *target, guint64 granularity)
{
    if (g_strcmp0(target->driver, "nbd") == 0)
        return NULL;
    if (g_strcmp0(target->driver, "qcow2") != 0 || target->clusterSize == 0)
        return g_strdup_printf("the clusters of a %s target have no size",
                               target->driver);
    if (granularity % target->clusterSize == 0)
        return NULL;
    return g_strdup_printf("a granularity of %" G_GUINT64_FORMAT
                           " does not cover the target's clusters of %" G_GUINT64_FORMAT
                           " bytes",
                           granularity, target->clusterSize);
}

gchar *
virCheckpointNativeFits(const virCheckpointNativePlan *plan,
                        const virCheckpointGraph *graph)
{
    const virCheckpointNode *source = virCheckpointGraphNode(graph, plan->source);
    const virCheckpointNode *target = virCheckpointGraphNode(graph, plan->target);
    const virCheckpointBitmapInfo *bitmap =
        source ? virCheckpointNodeBitmap(source, plan->bitmap) : NULL;

    if (!bitmap || !target)
        return g_strdup_printf("there is no %s '%s'", target ? "bitmap" : "node",
                               target ? plan->bitmap : plan->target);
    if (bitmap->busy || bitmap->inconsistent || !bitmap->recording ||
        (bitmap->persistent && source->readOnly))
        return g_strdup_printf("bitmap '%s' is %s", plan->bitmap,
                               bitmap->busy           ? "in use"
                               : bitmap->inconsistent ? "inconsistent"
                               : bitmap->recording    ? "read-only"
                                                      : "not recording");
    if (plan->dialect == VIR_CHECKPOINT_NATIVE_WORKING)
        return virCheckpointNativeFitsClusters(target, bitmap->granularity);
    return NULL;
}

virCheckpointNativeAnswer
virCheckpointNativeStart(const virCheckpointNativePlan *plan,
                         virCheckpointMonitor *monitor,
                         gchar **why,
                         GError **error)
{
    g_autoptr(virCheckpointGraph) graph = virCheckpointGraphQuery(monitor, error);
    g_autoptr(virCheckpointJson) reply = NULL;
    g_autoptr(GError) failed = NULL;

    if (!graph)
        return VIR_CHECKPOINT_NATIVE_FAILED;
    if ((*why = virCheckpointNativeFits(plan, graph)))
        return VIR_CHECKPOINT_NATIVE_UNFIT;
    reply = virCheckpointMonitorRun(monitor, "blockdev-mirror",
                                    virCheckpointNativeArguments(plan), &failed);
    if (reply)
        return VIR_CHECKPOINT_NATIVE_STARTED;
    if (!virCheckpointMonitorAnswered(monitor)) {
        g_propagate_error(error, g_steal_pointer(&failed));
        return VIR_CHECKPOINT_NATIVE_FAILED;
    }
    *why = g_strdup(failed->message);
    return VIR_CHECKPOINT_NATIVE_REFUSED;
}
