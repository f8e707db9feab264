/*
 * checkpoint_dispatch_guard.c: what is refused while a mirror of ours runs
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Libvirt refuses a second job, a snapshot, a detach and more for a disk that has a
 * block job.  Of our jobs it knows only the inner steps that it runs itself, and not in
 * every phase: so the gateway refuses in its place, with its code and text.  A detach
 * that slips through would leave the disk's image locked for the life of QEMU; a saved
 * guest would name an overlay that is gone when it is restored.
 *
 * The main context only sees whether the domain has a mirror at all; a worker then
 * finds out which disks the call means, asks libvirt whether the client may make such a
 * call, and refuses, or passes the call on.  The engine's own calls do not come through
 * here.
 */

#include "config.h"

#include "checkpoint_dispatchpriv.h"
#include "checkpoint_xml.h"

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

gboolean
virCheckpointDispatchGuardWanted(virCheckpointDispatch *dispatch,
                                 const virCheckpointFrame *frame)
{
    g_auto(virCheckpointProtoDomainArgs) args = {0};
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];

    /* The domain comes first in all of them. */
    if (!virCheckpointCallDecode(virCheckpointProtoDomainArgs, frame, &args))
        return FALSE;
    virCheckpointWireUuidFormat(args.dom.uuid, uuid);
    return virCheckpointEngineHasMirror(dispatch->engine, uuid, NULL);
}

gboolean
virCheckpointDispatchMoveWanted(virCheckpointDispatch *dispatch,
                                const virCheckpointFrame *frame)
{
    g_auto(virCheckpointProtoDomainArgs) args = {0};
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];

    if (!virCheckpointCallDecode(virCheckpointProtoDomainArgs, frame, &args))
        return FALSE;
    virCheckpointWireUuidFormat(args.dom.uuid, uuid);
    return virCheckpointEngineTracks(dispatch->engine, uuid);
}

void
virCheckpointDispatchMove(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoDomainArgs) args = {0};
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];

    if (virCheckpointCallDecode(virCheckpointProtoDomainArgs, call->frame, &args)) {
        virCheckpointWireUuidFormat(args.dom.uuid, uuid);
        if (!virCheckpointEngineHasMirror(call->engine, uuid, NULL))
            virCheckpointEngineBeforeJob(call->engine, uuid);
    }
    virCheckpointDispatchGuard(call);
}

/** Returns: the domain's XML as the client sees it, or NULL. */
static xmlDoc *
virCheckpointGuardDomainXml(virCheckpointCall *call,
                            const virCheckpointProtoDomain *dom)
{
    virCheckpointProtoDomainFlags args = {.dom = *dom};
    g_autoptr(virCheckpointFrame) answer = NULL;
    g_auto(virCheckpointProtoText) reply = {0};

    answer = virCheckpointCallAsk(virCheckpointProtoDomainFlags, call,
                                  VIR_CHECKPOINT_PROC_DOMAIN_GET_XML_DESC, &args);
    if (!answer || answer->status != VIR_CHECKPOINT_FRAME_OK ||
        !virCheckpointCallDecode(virCheckpointProtoText, answer, &reply))
        return NULL;
    return virCheckpointXmlParse(reply.text, "(domain)", "domain", NULL);
}

/** Whether the <disk> of the call's XML that names @target or @source has one of the
 * @outs as its @attribute; @fallback if there is no such <disk> or attribute. */
static gboolean
virCheckpointGuardLeftOut(GPtrArray *disks,
                          const gchar *target,
                          const gchar *source,
                          const gchar *attribute,
                          gboolean fallback)
{
    g_autofree gchar *xpath = g_strdup_printf("string(@%s)", attribute);
    guint i;

    for (i = 0; i < disks->len; i++) {
        xmlNode *node = g_ptr_array_index(disks, i);
        g_autofree gchar *name = virCheckpointXmlString(node, "string(@name)");
        g_autofree gchar *value = NULL;

        if (g_strcmp0(name, target) != 0 && (!source || g_strcmp0(name, source) != 0))
            continue;
        value = virCheckpointXmlString(node, xpath);
        return g_strcmp0(value, "no") == 0 || g_strcmp0(value, "manual") == 0;
    }
    return fallback;
}

/**
 * virCheckpointGuardXmlDisk:
 * @xml: of a snapshot or a backup; @attribute: what leaves a disk out
 *
 * Returns: the target of a disk with a mirror that the call touches, or NULL.
 */
static gchar *
virCheckpointGuardXmlDisk(virCheckpointCall *call,
                          const virCheckpointProtoDomain *dom,
                          const gchar *xml,
                          const gchar *root,
                          const gchar *attribute)
{
    g_autoptr(xmlDoc) wanted = virCheckpointXmlParse(xml, "(request)", root, NULL);
    g_autoptr(xmlDoc) domain = NULL;
    g_autoptr(GPtrArray) listed = NULL;
    g_autoptr(GPtrArray) disks = NULL;
    gboolean backup = g_str_equal(attribute, "backup");
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];
    guint i;

    if (!wanted || !(domain = virCheckpointGuardDomainXml(call, dom)))
        return NULL;
    virCheckpointWireUuidFormat(dom->uuid, uuid);
    listed = virCheckpointXmlNodes(xmlDocGetRootElement(wanted), "./disks/disk");
    disks = virCheckpointXmlNodes(xmlDocGetRootElement(domain), "./devices/disk");
    for (i = 0; i < disks->len; i++) {
        xmlNode *node = g_ptr_array_index(disks, i);
        g_autofree gchar *target = virCheckpointXmlString(node, "string(target/@dev)");
        g_autofree gchar *source = virCheckpointXmlString(node, "string(source/@file)");
        g_autofree gchar *own = virCheckpointXmlString(node, "string(@snapshot)");
        /* A backup with a list of disks leaves the others out; a snapshot does not. */
        gboolean fallback = backup ? listed->len > 0 : g_strcmp0(own, "no") == 0;

        if (target && virCheckpointEngineHasMirror(call->engine, uuid, target) &&
            !virCheckpointGuardLeftOut(listed, target, source, attribute, fallback))
            return g_steal_pointer(&target);
    }
    return NULL;
}

/** The disk of device XML, or of a device alias, if it has a mirror; else NULL. */
static gchar *
virCheckpointGuardDevice(virCheckpointCall *call,
                         const virCheckpointProtoDomain *dom,
                         const gchar *xml,
                         const gchar *alias)
{
    g_autoptr(xmlDoc) doc = NULL;
    g_autofree gchar *target = NULL;
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];

    if (xml) {
        doc = virCheckpointXmlParse(xml, "(device)", "disk", NULL);
        if (doc)
            target = virCheckpointXmlString(xmlDocGetRootElement(doc),
                                            "string(target/@dev)");
    } else if ((doc = virCheckpointGuardDomainXml(call, dom))) {
        g_autoptr(GPtrArray) disks = NULL;
        guint i;

        disks = virCheckpointXmlNodes(xmlDocGetRootElement(doc), "./devices/disk");
        for (i = 0; !target && i < disks->len; i++) {
            xmlNode *node = g_ptr_array_index(disks, i);
            g_autofree gchar *name =
                virCheckpointXmlString(node, "string(alias/@name)");

            if (g_strcmp0(name, alias) == 0)
                target = virCheckpointXmlString(node, "string(target/@dev)");
        }
    }
    virCheckpointWireUuidFormat(dom->uuid, uuid);
    if (!target || !virCheckpointEngineHasMirror(call->engine, uuid, target))
        return NULL;
    return g_steal_pointer(&target);
}

/** A call that names one disk: @disk if it has a mirror. */
static gchar *
virCheckpointGuardDisk(virCheckpointCall *call,
                       const virCheckpointProtoDomain *dom,
                       const gchar *disk)
{
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];

    virCheckpointWireUuidFormat(dom->uuid, uuid);
    return virCheckpointEngineHasMirror(call->engine, uuid, disk) ? g_strdup(disk)
                                                                  : NULL;
}

static void
virCheckpointGuardRefuse(virCheckpointCall *call, const gchar *disk)
{
    if (call->frame->procedure == VIR_CHECKPOINT_PROC_BACKUP_BEGIN)
        virCheckpointCallFail(call, VIR_CHECKPOINT_FROM_QEMU, VIR_ERR_INTERNAL_ERROR,
                              "disk '%s' has a blockjob assigned", disk);
    else
        virCheckpointCallFail(call, VIR_CHECKPOINT_FROM_QEMU, VIR_ERR_BLOCK_COPY_ACTIVE,
                              "disk '%s' already in active block job", disk);
}

/** Refuses @disk, or passes the call on if it is NULL. @ask: the question of the
 * right. */
#define virCheckpointGuardEnd(type, call, disk, ask)                                   \
    G_STMT_START                                                                       \
    {                                                                                  \
        if (!(disk))                                                                   \
            virCheckpointCallForward(call);                                            \
        else if (virCheckpointRightsAsk(type, call, (call)->frame->procedure, ask,     \
                                        virCheckpointRightsNotDenied))                 \
            virCheckpointGuardRefuse(call, disk);                                      \
    }                                                                                  \
    G_STMT_END

/** A pull begins only while nobody of ours looks at the domain's nodes: a look that
 * meets the end of one kills QEMU 7.2 (docs/internals/rules.md).  Once it was answered
 * the job is there, and is seen. */
typedef struct virCheckpointGuardPull {
    virCheckpointCall *call;
    xdrproc_t proc;
    gconstpointer args;
} virCheckpointGuardPull;

static void
virCheckpointGuardPullNow(gpointer data)
{
    virCheckpointGuardPull *pull = data;
    g_autoptr(virCheckpointFrame) answer = virCheckpointCallAskRaw(
        pull->call, pull->call->frame->procedure, pull->proc, pull->args);

    if (answer)
        virCheckpointCallPass(pull->call, answer);
}

static void
virCheckpointGuardPullAlone(virCheckpointCall *call,
                            const virCheckpointProtoDomain *dom,
                            xdrproc_t proc,
                            gconstpointer args)
{
    virCheckpointGuardPull pull = {call, proc, args};
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];

    virCheckpointWireUuidFormat(dom->uuid, uuid);
    if (!virCheckpointEngineAlone(call->engine, uuid, virCheckpointGuardPullNow, &pull))
        virCheckpointCallForward(call);
}

static void
virCheckpointGuardRate(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoDomainRate) args = {0};
    virCheckpointProtoDomainRate ask;
    g_autofree gchar *disk = NULL;

    if (virCheckpointCallDecode(virCheckpointProtoDomainRate, call->frame, &args))
        disk = virCheckpointGuardDisk(call, &args.dom, args.path);
    if (args.path && !disk &&
        call->frame->procedure == VIR_CHECKPOINT_PROC_BLOCK_PULL) {
        virCheckpointGuardPullAlone(call, &args.dom,
                                    (xdrproc_t)xdr_virCheckpointProtoDomainRate, &args);
        return;
    }
    ask = args;
    ask.path = (gchar *)VIR_CHECKPOINT_RIGHTS_NO_DISK;
    virCheckpointGuardEnd(virCheckpointProtoDomainRate, call, disk, &ask);
}

static void
virCheckpointGuardRebase(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoRebase) args = {0};
    virCheckpointProtoRebase ask;
    g_autofree gchar *disk = NULL;

    if (virCheckpointCallDecode(virCheckpointProtoRebase, call->frame, &args))
        disk = virCheckpointGuardDisk(call, &args.dom, args.path);
    if (args.path && !disk) {
        virCheckpointGuardPullAlone(call, &args.dom,
                                    (xdrproc_t)xdr_virCheckpointProtoRebase, &args);
        return;
    }
    ask = args;
    ask.path = (gchar *)VIR_CHECKPOINT_RIGHTS_NO_DISK;
    virCheckpointGuardEnd(virCheckpointProtoRebase, call, disk, &ask);
}

static void
virCheckpointGuardCommit(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoCommit) args = {0};
    virCheckpointProtoCommit ask;
    g_autofree gchar *disk = NULL;

    if (virCheckpointCallDecode(virCheckpointProtoCommit, call->frame, &args))
        disk = virCheckpointGuardDisk(call, &args.dom, args.disk);
    ask = args;
    ask.disk = (gchar *)VIR_CHECKPOINT_RIGHTS_NO_DISK;
    virCheckpointGuardEnd(virCheckpointProtoCommit, call, disk, &ask);
}

static void
virCheckpointGuardCopy(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoCopy) args = {0};
    virCheckpointProtoCopy ask;
    g_autofree gchar *disk = NULL;

    if (virCheckpointCallDecode(virCheckpointProtoCopy, call->frame, &args))
        disk = virCheckpointGuardDisk(call, &args.dom, args.path);
    ask = args;
    ask.path = (gchar *)VIR_CHECKPOINT_RIGHTS_NO_DISK;
    ask.destxml = (gchar *)VIR_CHECKPOINT_RIGHTS_NO_XML;
    virCheckpointGuardEnd(virCheckpointProtoCopy, call, disk, &ask);
}

gboolean
virCheckpointDispatchBackupGuard(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoBackup) args = {0};
    virCheckpointProtoBackup ask;
    g_autofree gchar *disk = NULL;

    if (virCheckpointCallDecode(virCheckpointProtoBackup, call->frame, &args))
        disk = virCheckpointGuardXmlDisk(call, &args.dom, args.xml, "domainbackup",
                                         "backup");
    if (!disk)
        return FALSE;
    ask = args;
    ask.xml = (gchar *)VIR_CHECKPOINT_RIGHTS_NO_XML;
    virCheckpointGuardEnd(virCheckpointProtoBackup, call, disk, &ask);
    return TRUE;
}

static void
virCheckpointGuardSnapshot(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoDomainTextFlags) args = {0};
    virCheckpointProtoDomainTextFlags ask;
    g_autofree gchar *disk = NULL;

    /* A redefine touches no disk. */
    if (virCheckpointCallDecode(virCheckpointProtoDomainTextFlags, call->frame,
                                &args) &&
        !(args.flags & VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE))
        disk = virCheckpointGuardXmlDisk(call, &args.dom, args.text, "domainsnapshot",
                                         "snapshot");
    ask = args;
    ask.text = (gchar *)VIR_CHECKPOINT_RIGHTS_NO_XML;
    virCheckpointGuardEnd(virCheckpointProtoDomainTextFlags, call, disk, &ask);
}

static void
virCheckpointGuardDetach(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoDomainText) args = {0};
    virCheckpointProtoDomainText ask;
    g_autofree gchar *disk = NULL;

    if (virCheckpointCallDecode(virCheckpointProtoDomainText, call->frame, &args))
        disk = virCheckpointGuardDevice(call, &args.dom, args.text, NULL);
    ask = args;
    ask.text = (gchar *)VIR_CHECKPOINT_RIGHTS_NO_XML;
    virCheckpointGuardEnd(virCheckpointProtoDomainText, call, disk, &ask);
}

static void
virCheckpointGuardDetachFlags(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoDomainTextFlags) args = {0};
    virCheckpointProtoDomainTextFlags ask;
    g_autofree gchar *disk = NULL;
    gboolean byAlias =
        call->frame->procedure == VIR_CHECKPOINT_PROC_DOMAIN_DETACH_DEVICE_ALIAS;

    /* The next boot's configuration alone is no concern of the mirror. */
    if (virCheckpointCallDecode(virCheckpointProtoDomainTextFlags, call->frame,
                                &args) &&
        args.flags != VIR_DOMAIN_AFFECT_CONFIG)
        disk = virCheckpointGuardDevice(call, &args.dom, byAlias ? NULL : args.text,
                                        byAlias ? args.text : NULL);
    ask = args;
    ask.text = (gchar *)(byAlias ? "" : VIR_CHECKPOINT_RIGHTS_NO_XML);
    virCheckpointGuardEnd(virCheckpointProtoDomainTextFlags, call, disk, &ask);
}

/** Saving and migrating: of the domain as a whole.  Libvirt has no harmless form of
 * them to ask with; that the client sees the domain is what is asked. */
static void
virCheckpointGuardDomain(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoDomainArgs) args = {0};
    g_auto(virCheckpointProtoDomainArgs) now = {0};
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];

    if (virCheckpointCallDecode(virCheckpointProtoDomainArgs, call->frame, &args))
        virCheckpointWireUuidFormat(args.dom.uuid, uuid);
    if (!args.dom.name || !virCheckpointEngineHasMirror(call->engine, uuid, NULL) ||
        !virCheckpointCallDomain(call, args.dom.uuid, &now))
        virCheckpointCallForward(call);
    else
        virCheckpointCallFail(call, VIR_CHECKPOINT_FROM_QEMU, VIR_ERR_OPERATION_INVALID,
                              "domain has active block job");
}

void
virCheckpointDispatchGuard(virCheckpointCall *call)
{
    switch (call->frame->procedure) {
    case VIR_CHECKPOINT_PROC_BLOCK_PULL:
    case VIR_CHECKPOINT_PROC_BLOCK_RESIZE:
        virCheckpointGuardRate(call);
        break;
    case VIR_CHECKPOINT_PROC_BLOCK_REBASE:
        virCheckpointGuardRebase(call);
        break;
    case VIR_CHECKPOINT_PROC_BLOCK_COMMIT:
        virCheckpointGuardCommit(call);
        break;
    case VIR_CHECKPOINT_PROC_BLOCK_COPY:
        virCheckpointGuardCopy(call);
        break;
    case VIR_CHECKPOINT_PROC_SNAPSHOT_CREATE_XML:
        virCheckpointGuardSnapshot(call);
        break;
    case VIR_CHECKPOINT_PROC_DOMAIN_DETACH_DEVICE:
        virCheckpointGuardDetach(call);
        break;
    case VIR_CHECKPOINT_PROC_DOMAIN_DETACH_DEVICE_FLAGS:
    case VIR_CHECKPOINT_PROC_DOMAIN_DETACH_DEVICE_ALIAS:
        virCheckpointGuardDetachFlags(call);
        break;
    default:
        virCheckpointGuardDomain(call);
        break;
    }
}
