/*
 * virsh_plan.h: from blockcopy's options to the arguments of the call
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIRSH_PLAN_H
#define VIRSH_PLAN_H

#include <glib.h>
#include <libvirt/libvirt.h>

#include "virsh_options.h"

typedef struct {
    const gchar *domain;  /* borrowed from the options: name, UUID or id */
    const gchar *path;    /* borrowed: target or source of the disk */
    const gchar *xmlFile; /* borrowed: --xml, or NULL */
    gchar *xml;           /* built from --dest, or NULL */
    gboolean printXml;
    gboolean endCheckpoints; /* the target may lose them */
    guint flags;             /* virDomainBlockCopyFlags */
    virTypedParameterPtr params;
    int nparams;
    guint jobFlags; /* virCheckpointVirshJobFlags */
    guint timeoutMs;
} virCheckpointVirshPlan;

/**
 * virCheckpointVirshPlanNew:
 * @options: parsed without a message; must outlive the plan
 * @error: stock's sentence for what is wrong, several lines at times
 *
 * Pure data: no file is read, nothing is asked.
 *
 * Returns: (transfer full): the plan, or NULL.
 */
virCheckpointVirshPlan *
virCheckpointVirshPlanNew(const virCheckpointVirshOptions *options, GError **error);
void
virCheckpointVirshPlanFree(virCheckpointVirshPlan *plan);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointVirshPlan, virCheckpointVirshPlanFree)

/**
 * virCheckpointVirshPlanSetXml:
 * @xml: contents of the file that --xml names
 *
 * Takes a copy.  FALSE if the target's format rules out what the plan is for: a guest
 * that moves onto a target without bitmaps would lose its checkpoints.
 */
gboolean
virCheckpointVirshPlanSetXml(virCheckpointVirshPlan *plan,
                             const gchar *xml,
                             GError **error);

#endif
