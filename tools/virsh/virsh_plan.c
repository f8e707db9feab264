/*
 * virsh_plan.c: from blockcopy's options to the arguments of the call
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The checks are stock's, in its words, so that a script which adds --bitmap to a
 * command meets no other surprise.  Everything that needs the disk or the checkpoint is
 * left to the daemon; two things are said here because only here the wish to pivot is
 * known at the start, and because a missing --reuse-external is a slip of the keyboard.
 */

#include "config.h"

#include "virsh_plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_xml.h"
#include "libvirt-checkpoint.h"
#include "virsh_job.h"

#define VALUE(name)                                                                    \
    virCheckpointVirshOptionsGet(options, VIR_CHECKPOINT_VIRSH_OPTION_##name)
#define HAS(name)                                                                      \
    virCheckpointVirshOptionsHas(options, VIR_CHECKPOINT_VIRSH_OPTION_##name)

static gboolean
virCheckpointVirshPlanFail(GError **error, const gchar *format, ...)
    G_GNUC_PRINTF(2, 3);

static gboolean
virCheckpointVirshPlanFail(GError **error, const gchar *format, ...)
{
    va_list args;

    va_start(args, format);
    if (error)
        *error =
            g_error_new_valist(VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG, format, args);
    va_end(args);
    return FALSE;
}

/* An unsigned decimal number as virsh takes it: blanks in front, no sign. */
static gboolean
virCheckpointVirshPlanNumber(const gchar *name,
                             const gchar *text,
                             guint64 max,
                             guint64 min,
                             guint64 *out,
                             GError **error)
{
    gchar *end = NULL;
    guint64 number;

    errno = 0;
    number = g_ascii_strtoull(text, &end, 10);
    if (errno || end == text || *end || strchr(text, '-') || number < min ||
        number > max)
        return virCheckpointVirshPlanFail(
            error, "Numeric value '%s' for <%s> option is malformed or out of range",
            text, name);
    *out = number;
    return TRUE;
}

/* The factor that a suffix such as "k", "KiB" or "MB" stands for, or 0. */
static guint64
virCheckpointVirshPlanScale(const gchar *suffix)
{
    static const gchar units[] = "kmgtpe";
    const gchar *unit = *suffix ? strchr(units, g_ascii_tolower(*suffix)) : NULL;
    guint64 base = 1024;
    guint64 scale = 1;
    const gchar *p;

    if (!g_ascii_strcasecmp(suffix, "b") || !g_ascii_strcasecmp(suffix, "byte") ||
        !g_ascii_strcasecmp(suffix, "bytes"))
        return 1;
    if (!unit)
        return 0;
    if (!g_ascii_strcasecmp(suffix + 1, "b"))
        base = 1000;
    else if (suffix[1] && g_ascii_strcasecmp(suffix + 1, "ib"))
        return 0;
    for (p = units; p <= unit; p++)
        scale *= base;
    return scale;
}

/* Stock's rules (9.0.0, seen): a plain number is MiB/s, or bytes/s with --bytes, and
 * wraps if negative; one with a suffix is bytes/s, cut to whole MiB/s without --bytes.
 */
static gboolean
virCheckpointVirshPlanBandwidth(const gchar *text,
                                gboolean bytes,
                                guint64 *out,
                                GError **error)
{
    static const gchar malformed[] = "Scaled numeric value '%s' for <--bandwidth> "
                                     "option is malformed or out of range";
    gchar *end = NULL;
    guint64 number;
    guint64 scale;

    errno = 0;
    number = g_ascii_strtoull(text, &end, 10);
    if (errno || end == text)
        return virCheckpointVirshPlanFail(error, malformed, text);
    if (!*end && bytes) {
        *out = number;
    } else if (!*end) {
        if (number > G_MAXUINT64 >> 20)
            return virCheckpointVirshPlanFail(
                error, "bandwidth must be less than %" G_GUINT64_FORMAT,
                (guint64)(G_MAXUINT64 >> 20));
        *out = number << 20;
    } else if (!(scale = virCheckpointVirshPlanScale(end))) {
        return virCheckpointVirshPlanFail(
            error,
            "Scaled numeric value '%s' for <--bandwidth> option is malformed or out of "
            "range\ninvalid argument: unknown suffix '%s'",
            text, end);
    } else if (number > G_MAXUINT64 / scale) {
        return virCheckpointVirshPlanFail(error, malformed, text);
    } else {
        *out = bytes ? number * scale : number * scale & ~(guint64)0xfffff;
    }
    return TRUE;
}

/* The value of a string option: absent is fine, empty is not. */
static gboolean
virCheckpointVirshPlanText(const virCheckpointVirshOptions *options,
                           virCheckpointVirshOption option,
                           const gchar *name,
                           GError **error)
{
    const gchar *value = virCheckpointVirshOptionsGet(options, option);

    if (value && !*value)
        return virCheckpointVirshPlanFail(
            error, "Failed to get option '%s': Option argument is empty", name);
    return TRUE;
}

static gboolean
virCheckpointVirshPlanTexts(const virCheckpointVirshOptions *options, GError **error)
{
    static const struct {
        virCheckpointVirshOption option;
        const gchar *name;
    } texts[] = {
        {VIR_CHECKPOINT_VIRSH_OPTION_PATH, "path"},
        {VIR_CHECKPOINT_VIRSH_OPTION_DEST, "dest"},
        {VIR_CHECKPOINT_VIRSH_OPTION_XML, "xml"},
        {VIR_CHECKPOINT_VIRSH_OPTION_FORMAT, "format"},
        {VIR_CHECKPOINT_VIRSH_OPTION_BITMAP, "bitmap"},
        {VIR_CHECKPOINT_VIRSH_OPTION_CHECKPOINT, "checkpoint"},
        {VIR_CHECKPOINT_VIRSH_OPTION_DOMAIN, "domain"},
    };
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(texts); i++) {
        if (!virCheckpointVirshPlanText(options, texts[i].option, texts[i].name, error))
            return FALSE;
    }
    return TRUE;
}

static gboolean
virCheckpointVirshPlanCombination(const virCheckpointVirshOptions *options,
                                  GError **error)
{
    static const gchar exclusive[] = "Options --%s and --%s are mutually exclusive";
    static const gchar waits[] =
        "--%s requires at least one of --timeout, --wait, --pivot, or --finish";
    gboolean blocking = HAS(TIMEOUT) || HAS(WAIT) || HAS(PIVOT) || HAS(FINISH);

    if (HAS(DEST) && HAS(XML))
        return virCheckpointVirshPlanFail(error, exclusive, "dest", "xml");
    if (HAS(FORMAT) && HAS(XML))
        return virCheckpointVirshPlanFail(error, exclusive, "format", "xml");
    if (HAS(BLOCKDEV) && HAS(XML))
        return virCheckpointVirshPlanFail(error, exclusive, "blockdev", "xml");
    if (HAS(PIVOT) && HAS(FINISH))
        return virCheckpointVirshPlanFail(error, exclusive, "pivot", "finish");
    if (!HAS(DEST) && !HAS(XML))
        return virCheckpointVirshPlanFail(error, "need either --dest or --xml");
    if (HAS(ASYNC) && !blocking)
        return virCheckpointVirshPlanFail(error, waits, "async");
    if (HAS(VERBOSE) && !blocking)
        return virCheckpointVirshPlanFail(error, waits, "verbose");
    if (HAS(VERIFY) && !HAS(FINISH))
        return virCheckpointVirshPlanFail(
            error, "Option --finish is required by option --verify");
    if (HAS(BITMAP) && !HAS(REUSE_EXTERNAL))
        return virCheckpointVirshPlanFail(
            error, "Option --reuse-external is required by option --bitmap");
    return TRUE;
}

static void
virCheckpointVirshPlanFlags(virCheckpointVirshPlan *plan,
                            const virCheckpointVirshOptions *options)
{
    if (HAS(SHALLOW))
        plan->flags |= VIR_DOMAIN_BLOCK_COPY_SHALLOW;
    if (HAS(REUSE_EXTERNAL))
        plan->flags |= VIR_DOMAIN_BLOCK_COPY_REUSE_EXT;
    if (HAS(TRANSIENT_JOB))
        plan->flags |= VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB;
    if (HAS(SYNCHRONOUS_WRITES))
        plan->flags |= VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES;
    if (HAS(TIMEOUT) || HAS(WAIT) || HAS(PIVOT) || HAS(FINISH))
        plan->jobFlags |= VIR_CHECKPOINT_VIRSH_JOB_WAIT;
    if (HAS(VERBOSE))
        plan->jobFlags |= VIR_CHECKPOINT_VIRSH_JOB_VERBOSE;
    if (HAS(ASYNC))
        plan->jobFlags |= VIR_CHECKPOINT_VIRSH_JOB_ASYNC;
    if (HAS(PIVOT))
        plan->jobFlags |= VIR_CHECKPOINT_VIRSH_JOB_PIVOT;
    if (HAS(FINISH))
        plan->jobFlags |= VIR_CHECKPOINT_VIRSH_JOB_FINISH;
    plan->printXml = HAS(PRINT_XML);
    plan->endCheckpoints = HAS(END_CHECKPOINTS);
}

static gboolean
virCheckpointVirshPlanNumbers(virCheckpointVirshPlan *plan,
                              const virCheckpointVirshOptions *options,
                              GError **error)
{
    guint64 bandwidth = 0;
    guint64 granularity = 0;
    guint64 bufSize = 0;
    guint64 seconds = 0;
    int max = 0;

    if ((HAS(TIMEOUT) &&
         (!virCheckpointVirshPlanNumber("timeout", VALUE(TIMEOUT), G_MAXINT / 1000, 1,
                                        &seconds, error))) ||
        (HAS(BANDWIDTH) && !virCheckpointVirshPlanBandwidth(
                               VALUE(BANDWIDTH), HAS(BYTES), &bandwidth, error)) ||
        (HAS(GRANULARITY) &&
         !virCheckpointVirshPlanNumber("granularity", VALUE(GRANULARITY), G_MAXUINT, 0,
                                       &granularity, error)) ||
        (HAS(BUF_SIZE) &&
         !virCheckpointVirshPlanNumber("buf-size", VALUE(BUF_SIZE), G_MAXUINT64, 0,
                                       &bufSize, error)))
        return FALSE;
    plan->timeoutMs = (guint)seconds * 1000;
    if (virInitialize() < 0) /* else their errors crash (9.0.0) */
        return virCheckpointVirshPlanFail(error, "libvirt does not start");
    if ((bandwidth &&
         virTypedParamsAddULLong(&plan->params, &plan->nparams, &max,
                                 VIR_DOMAIN_BLOCK_COPY_BANDWIDTH, bandwidth) < 0) ||
        (granularity && virTypedParamsAddUInt(&plan->params, &plan->nparams, &max,
                                              VIR_DOMAIN_BLOCK_COPY_GRANULARITY,
                                              (guint)granularity) < 0) ||
        (bufSize &&
         virTypedParamsAddULLong(&plan->params, &plan->nparams, &max,
                                 VIR_DOMAIN_BLOCK_COPY_BUF_SIZE, bufSize) < 0) ||
        (HAS(BITMAP) && virTypedParamsAddString(&plan->params, &plan->nparams, &max,
                                                VIR_CHECKPOINT_BLOCK_COPY_BITMAP,
                                                VALUE(BITMAP)) < 0) ||
        (HAS(CHECKPOINT) &&
         virTypedParamsAddString(&plan->params, &plan->nparams, &max,
                                 VIR_CHECKPOINT_BLOCK_COPY_CHECKPOINT,
                                 VALUE(CHECKPOINT)) < 0) ||
        (HAS(FINISH) &&
         virTypedParamsAddBoolean(&plan->params, &plan->nparams, &max,
                                  VIR_CHECKPOINT_BLOCK_COPY_FINISH, TRUE) < 0) ||
        (HAS(VERIFY) &&
         virTypedParamsAddBoolean(&plan->params, &plan->nparams, &max,
                                  VIR_CHECKPOINT_BLOCK_COPY_VERIFY, TRUE) < 0) ||
        (HAS(PIVOT) &&
         virTypedParamsAddBoolean(&plan->params, &plan->nparams, &max,
                                  VIR_CHECKPOINT_BLOCK_COPY_PIVOT, TRUE) < 0) ||
        (HAS(END_CHECKPOINTS) &&
         virTypedParamsAddBoolean(&plan->params, &plan->nparams, &max,
                                  VIR_CHECKPOINT_BLOCK_COPY_END_CHECKPOINTS, TRUE) < 0))
        return virCheckpointVirshPlanFail(error, "%s", virGetLastErrorMessage());
    return TRUE;
}

/* A guest that pivots goes on tracking on the target, in a bitmap only qcow2 keeps. */
static gboolean
virCheckpointVirshPlanFormat(const virCheckpointVirshPlan *plan,
                             const gchar *format,
                             GError **error)
{
    if ((plan->jobFlags & VIR_CHECKPOINT_VIRSH_JOB_PIVOT) && format &&
        !plan->endCheckpoints && !g_str_equal(format, "qcow2"))
        return virCheckpointVirshPlanFail(
            error,
            "--pivot needs a target that keeps the checkpoints: its format is '%s', "
            "not 'qcow2'; --end-checkpoints lets them end there",
            format);
    return TRUE;
}

static void
virCheckpointVirshPlanDest(virCheckpointVirshPlan *plan,
                           const virCheckpointVirshOptions *options)
{
    g_autoptr(GString) xml = g_string_new(NULL);

    virCheckpointXmlAppend(xml, "<disk type='%s'>\n  <source %s='%s'/>\n",
                           HAS(BLOCKDEV) ? "block" : "file",
                           HAS(BLOCKDEV) ? "dev" : "file", VALUE(DEST));
    if (HAS(FORMAT))
        virCheckpointXmlAppend(xml, "  <driver type='%s'/>\n", VALUE(FORMAT));
    g_string_append(xml, "</disk>\n");
    plan->xml = g_string_free(g_steal_pointer(&xml), FALSE);
}

virCheckpointVirshPlan *
virCheckpointVirshPlanNew(const virCheckpointVirshOptions *options, GError **error)
{
    g_autoptr(virCheckpointVirshPlan) plan = g_new0(virCheckpointVirshPlan, 1);

    plan->domain = VALUE(DOMAIN);
    plan->path = VALUE(PATH);
    plan->xmlFile = VALUE(XML);
    virCheckpointVirshPlanFlags(plan, options);
    if (!virCheckpointVirshPlanTexts(options, error) ||
        !virCheckpointVirshPlanCombination(options, error) ||
        !virCheckpointVirshPlanNumbers(plan, options, error) ||
        !virCheckpointVirshPlanFormat(plan, VALUE(FORMAT), error))
        return NULL;
    if (HAS(DEST))
        virCheckpointVirshPlanDest(plan, options);
    return g_steal_pointer(&plan);
}

void
virCheckpointVirshPlanFree(virCheckpointVirshPlan *plan)
{
    if (!plan)
        return;
    g_free(plan->xml);
    virTypedParamsFree(plan->params, plan->nparams);
    g_free(plan);
}

gboolean
virCheckpointVirshPlanSetXml(virCheckpointVirshPlan *plan,
                             const gchar *xml,
                             GError **error)
{
    g_autoptr(xmlDoc) doc = virCheckpointXmlParse(xml, "(disk_definition)", NULL, NULL);
    g_autofree gchar *format = NULL;

    /* What is wrong with the document itself is for the daemon to say. */
    if (doc)
        format = virCheckpointXmlString(xmlDocGetRootElement(doc), "./driver/@type");
    if (!virCheckpointVirshPlanFormat(plan, format, error))
        return FALSE;
    g_free(plan->xml);
    plan->xml = g_strdup(xml);
    return TRUE;
}
